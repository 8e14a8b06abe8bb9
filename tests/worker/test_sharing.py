"""Limits that replicas share through a real Redis, in real time: what they may do together is what one may do."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from service import settings
from service.dispatch.account import Account
from service.documents import Classified
from service.errors import Misconfigured, Unavailable
from service.limits.admission import Stream
from service.limits.costs import DAY, HOUR, Tariff
from service.limits.gate import Limits
from service.observability.telemetry import Telemetry
from service.worker import sharing
from tests.classifiers import FirstWord
from tests.clock import Clock
from tests.redis_server import PASSWORD, RedisServer, redis_server

UNIT = Classified((), 1)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(started: RedisServer) -> RedisServer:
    started.stop()
    started.start()  # empty
    return started


def where(server: RedisServer, **values: Any) -> settings.Redis:
    return settings.Redis.model_validate({"host": "127.0.0.1", "port": server.port, "password": PASSWORD, **values})


class Replica:
    """A gate that shares with others, and what went through it."""

    def __init__(self, clock: Callable[[], float] = time.time, /, **limits: Any) -> None:
        self.telemetry = Telemetry()
        self.limits = Limits(settings.Limits.model_validate({"in_flight": 500, **limits}), Tariff(1.0), clock)
        self.limits.share(Stream(), 0.25)
        events = self.telemetry.account("azure", "fake")
        self.account = Account("azure", "fake", FirstWord(), limits=self.limits, telemetry=events)
        self.went: list[float] = []

    async def ask(self, until: float, *, callers: int = 20, documents: int = 1, characters: int = 10) -> None:
        async def call() -> None:
            while time.monotonic() < until:
                async with self.limits.admit(characters, documents, lambda: time.monotonic() > until) as admitted:
                    if admitted:
                        self.went.append(time.monotonic())
                        self.limits.answered([UNIT] * documents)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(call()) for _ in range(callers)]
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ask_in_turn(self, calls: int) -> None:
        for _ in range(calls):
            async with self.limits.admit(0, 1):
                self.limits.answered([UNIT])

    def sample(self, name: str) -> float | None:
        who = {"account": "azure", "provider": "fake"}
        return self.telemetry.registry.get_sample_value(f"labelstream_{name}", who)


@asynccontextmanager
async def together(server: RedisServer, *replicas: Replica) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for each in replicas:
            await stack.enter_async_context(sharing.shared(where(server), "triage", [each.account], each.telemetry))
        for each in replicas:
            await shared(each, 1)
        yield


async def shared(replica: Replica, wanted: float) -> None:
    async with asyncio.timeout(20):
        while replica.sample("limits_shared") != wanted:  # noqa: ASYNC110  a metric tells nobody that it has changed
            await asyncio.sleep(0.01)


def most_in_a_second(moments: list[float]) -> int:
    ordered = sorted(moments)
    return max(sum(begin <= moment < begin + 1 for moment in ordered) for begin in ordered)


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({"requests_per_second": 100}, 100),
        ({"requests_per_second": 1000}, 1000),
        ({"documents_per_second": 100}, 100),
        ({"characters_per_second": 1000}, 100),
    ],
    ids=["requests", "many-requests", "documents", "characters"],
)
async def test_replicas_use_a_quota_together_as_one_would(
    server: RedisServer, limits: dict[str, int], most: int
) -> None:
    replicas = [Replica(**limits) for _ in range(3)]
    async with together(server, *replicas):
        began = time.monotonic()
        await asyncio.gather(*(each.ask(began + 3) for each in replicas))
    went = [moment for each in replicas for moment in each.went]
    seconds = time.monotonic() - began
    print(f"{len(went) / (most * seconds):.1%} of {most} a second")  # noqa: T201  what the README says, by -rP
    assert len(went) <= most * seconds + 2
    assert most_in_a_second(went) <= 1.06 * most
    assert min(len(each.went) for each in replicas) > 0


async def test_who_has_more_to_ask_gets_what_others_do_not_need(server: RedisServer) -> None:
    busy, idle = Replica(requests_per_second=100), Replica(requests_per_second=100)
    async with together(server, busy, idle):
        began = time.monotonic()
        await asyncio.gather(busy.ask(began + 3), idle.ask(began + 3, callers=0))
    assert len(busy.went) > 0.25 * 100 * 3 * 1.5, "its own share of the partitions is a quarter"


async def test_what_is_larger_than_a_slice_is_paid_off_before_anything_else_goes(server: RedisServer) -> None:
    replicas = [Replica(characters_per_second=1000) for _ in range(2)]
    async with together(server, *replicas):
        began = time.monotonic()
        await asyncio.gather(*(each.ask(began + 4, callers=3, characters=700) for each in replicas))
    went = sum(len(each.went) for each in replicas)
    assert 2 <= went <= 1000 * 4 / 700 + 2


async def test_a_retry_after_that_one_hears_keeps_all_quiet(server: RedisServer) -> None:
    one, other = Replica(), Replica()
    async with together(server, one, other):
        one.limits.quiet(30)
        async with asyncio.timeout(20):
            while other.limits.quiet_for < 20:  # noqa: ASYNC110  nor does a gate
                await asyncio.sleep(0.01)
        assert one.limits.quiet_for <= 30


async def test_money_is_never_spent_twice_and_all_of_it_is(server: RedisServer) -> None:
    replicas = [Replica(spend_per_day=500) for _ in range(3)]
    async with together(server, *replicas):
        began = time.monotonic()
        await asyncio.gather(*(each.ask(began + 3) for each in replicas))
        went = sum(len(each.went) for each in replicas)
        assert went == 500
        assert sum(each.limits.statistics().spent.day for each in replicas) <= 500


async def test_a_worker_ends_when_the_money_of_all_is_spent_and_not_while_it_asks(server: RedisServer) -> None:
    one, other = Replica(spend_per_day=50, when_spent="stop"), Replica(spend_per_day=50, when_spent="stop")
    async with together(server, one, other):
        await one.ask_in_turn(20)
        await other.ask_in_turn(20)
        with pytest.raises(Misconfigured, match="spend_per_day"):
            await one.ask_in_turn(20)


async def test_money_that_was_spent_is_known_to_those_who_come_later(server: RedisServer) -> None:
    one, later = Replica(spend_per_day=300), Replica(spend_per_day=300)
    async with together(server, one), one.limits.admit(10, 100):
        one.limits.answered([UNIT] * 100)
    async with together(server, later):
        began = time.monotonic()
        await later.ask(began + 2)
    assert 199 <= len(later.went) <= 200


async def test_money_that_is_spent_while_redis_is_away_is_of_the_hour_it_was_spent_in(server: RedisServer) -> None:
    clock = Clock(DAY * (time.time() // DAY) + 10.5 * HOUR)
    replica, other = (Replica(clock, spend_per_hour=100, spend_per_day=500) for _ in range(2))
    async with together(server, replica):
        server.stop()
        await shared(replica, 0)
        await replica.ask_in_turn(20)
        clock.at += HOUR
        await replica.ask_in_turn(5)
        server.start()
        await shared(replica, 1)
        async with together(server, other), asyncio.timeout(20):
            while other.limits.statistics().spent.day == 0:  # noqa: ASYNC110  nor does a budget
                await asyncio.sleep(0.01)
        spent = other.limits.statistics().spent
    assert (spent.hour, spent.day) == (5 / 4, 25 / 4), "a quarter of what all have spent is taken to be its own"


async def test_while_redis_is_away_each_goes_by_its_share_and_then_by_redis_again(server: RedisServer) -> None:
    replica = Replica(requests_per_second=100)
    with capture_logs() as logs:
        async with together(server, replica):
            server.stop()
            await shared(replica, 0)
            began = time.monotonic()
            replica.went.clear()
            await replica.ask(began + 2)
            alone = len(replica.went)
            assert 10 < alone <= 25 * 2 + 3, "a quarter of the partitions is ours"
            server.start()
            await shared(replica, 1)
            began = time.monotonic()
            await replica.ask(began + 2)
            assert len(replica.went) - alone > 25 * 2 * 1.2
    events = [entry["event"] for entry in logs]
    assert events == ["limits_shared", "limits_not_shared", "limits_shared"]
    assert (replica.sample("limits_sharing_seconds_count") or 0) > 10


async def test_no_server_at_the_start_keeps_nobody_waiting(tmp_path: Path) -> None:
    nowhere = RedisServer(tmp_path)
    replica = Replica(requests_per_second=100)
    async with sharing.shared(where(nowhere), "triage", [replica.account], replica.telemetry):
        await replica.ask(time.monotonic() + 1)
    assert 5 < len(replica.went) <= 28


async def test_keys_tell_which_account_it_is_and_nothing_else(server: RedisServer) -> None:
    replica = Replica(requests_per_second=100, spend_per_hour=100)
    async with together(server, replica):
        await replica.ask(time.monotonic() + 0.5)
        client = Redis(host="127.0.0.1", port=server.port, password=PASSWORD, decode_responses=True)
        keys = sorted(await client.keys())
        lives = [await client.pttl(key) for key in keys]
        await client.aclose()
    hour = int(time.time() // 3600)
    assert keys[0] in {f"labelstream:{{triage.azure}}:hour:{hour}", f"labelstream:{{triage.azure}}:hour:{hour - 1}"}
    assert keys[1] == "labelstream:{triage.azure}:rate:0"
    assert all(0 < life <= 7_200_000 for life in lives), "nothing stays for good"


async def test_a_wrong_password_is_an_outage_and_never_shown(server: RedisServer) -> None:
    replica = Replica(requests_per_second=100)
    with capture_logs() as logs:
        wrong = where(server, password="another-password")
        async with sharing.shared(wrong, "triage", [replica.account], replica.telemetry):
            await replica.ask(time.monotonic() + 0.5)
    assert replica.went
    assert "another-password" not in str(logs)
    assert logs[0]["reason"] == "AuthenticationError"


async def test_what_is_each_workers_own_is_not_shared(server: RedisServer) -> None:
    replica = Replica(requests_per_second=100, quotas_of="worker")
    async with sharing.shared(where(server), "triage", [replica.account], replica.telemetry):
        await replica.ask(time.monotonic() + 0.2)
    assert replica.sample("limits_shared") is None


@pytest.mark.parametrize(
    ("values", "tls"),
    [
        ({"host": "127.0.0.1"}, False),
        ({"host": "localhost", "ca_file": "ca.pem"}, True),
        ({"host": "redis.contoso.com"}, True),
        ({"host": "redis.contoso.com", "plaintext": True}, False),
    ],
)
def test_it_is_encrypted_beyond_this_machine(values: dict[str, Any], tls: bool) -> None:
    assert settings.Redis.model_validate(values).tls is tls


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"host": "redis://:secret@redis:6379"}, "write the name or address alone"),
        ({"host": "redis..contoso"}, "write the name or address alone"),
        ({"host": "redis", "plaintext": True, "ca_file": "ca.pem"}, "ca_file is for TLS"),
        ({"host": "redis", "username": "triage"}, "no password or password_file"),
        ({"host": "redis", "password": "a", "password_file": "b"}, "either password or password_file"),
        ({"host": "redis", "password_file": "/nowhere"}, "cannot be read"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        settings.Redis.model_validate(values)


async def test_it_is_seen_beforehand_whether_it_lets_us_in(server: RedisServer) -> None:
    await sharing.rehearse(where(server))
    with pytest.raises(Unavailable, match=r"redis: 127\.0\.0\.1:\d+ does not let us in: AuthenticationError"):
        await sharing.rehearse(where(server, password="another-password"))


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis.asyncio", None)
    with pytest.raises(Misconfigured, match=r"labelstream\[redis\]"):
        sharing._client(settings.Redis(host="127.0.0.1"))
