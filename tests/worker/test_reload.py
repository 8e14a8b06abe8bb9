import asyncio
from typing import Any

import pytest

from service import settings
from service.dispatch.account import Account
from service.errors import Misconfigured
from service.limits.gate import Limits
from service.observability import logs, messages
from service.observability.telemetry import Telemetry
from service.routing.records import Routing
from service.routing.rules import Rules
from service.settings import Settings
from service.worker.reload import Reloading, changes, may_change
from tests.classifiers import FirstWord


def tree(**changed: Any) -> dict[str, Any]:
    azure: dict[str, Any] = {"provider": "azure_language", "endpoint": "https://contoso.example", "key": "c4nary"}
    azure |= {"project": "p", "deployment": "d", "task": "single_label", "price": {"per_unit": 0.001}}
    azure |= {"limits": {"requests_per_second": 10, "spend_per_day": 40}}
    whole = {
        "kafka": {"bootstrap_servers": "127.0.0.1:9092", "group_id": "g"},
        "accounts": {"azure": {**azure, **changed.pop("azure", {})}},
        "streams": [
            {"name": "t", "input": "in", "classify_with": "azure", "output": "out", "dead_letter": "dead"}
            | changed.pop("stream", {})
        ],
    }
    return {**whole, **changed}


def parsed(**changed: Any) -> Settings:
    return settings.parse(tree(**changed))


LIMITS = "accounts.azure.limits"
ROUTES = [{"class": "billing", "to": "billing"}]


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        ({}, []),
        ({"log": {"level": "debug"}}, ["log.level"]),
        ({"stream": {"routes": ROUTES}}, ["streams.t.routes"]),
        (
            {"azure": {"limits": {"requests_per_second": 20, "spend_per_day": 50, "in_flight": "adaptive"}}},
            [f"{LIMITS}.{name}" for name in ("in_flight", "requests_per_second", "spend_per_day")],
        ),
        (
            {"azure": {"limits": {"documents_per_second": 2, "spend_per_day": 40, "breaker": {"failures": 9}}}},
            [f"{LIMITS}.{name}" for name in ("requests_per_second", "documents_per_second", "breaker.failures")],
        ),
    ],
)
def test_routes_limits_and_the_log_may_change(changed: dict[str, Any], paths: list[str]) -> None:
    found = changes(parsed(), parsed(**changed))
    assert list(map(str, found)) == paths
    assert all(may_change(each, is_shared=False) for each in found)


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"kafka": {"bootstrap_servers": "127.0.0.1:9092", "group_id": "other"}}, "kafka.group_id"),
        ({"azure": {"key": "another"}}, "accounts.azure.key"),
        ({"azure": {"endpoint": "https://other.example"}}, "accounts.azure.endpoint"),
        ({"azure": {"price": {"per_unit": 1}}}, "accounts.azure.price.per_unit"),
        ({"azure": {"limits": {"requests_per_second": 10}}}, "accounts.azure.limits.spend_per_day"),
        (
            {"azure": {"limits": {"requests_per_second": 10, "spend_per_day": 40, "spend_per_hour": 4}}},
            "accounts.azure.limits.spend_per_hour",
        ),
        (
            {"azure": {"limits": {"requests_per_second": 10, "spend_per_day": 40, "quotas_of": "worker"}}},
            "accounts.azure.limits.quotas_of",
        ),
        ({"stream": {"name": "renamed"}}, "streams"),
        ({"stream": {"output": "elsewhere"}}, "streams.t.output"),
        ({"stream": {"capacity": {"documents": 10}}}, "streams.t.capacity.documents"),
        ({"health": {"port": 1}}, "health.port"),
        ({"redis": {"host": "127.0.0.1"}}, "redis"),
    ],
)
def test_nothing_else_may(changed: dict[str, Any], path: str) -> None:
    (found,) = changes(parsed(), parsed(**changed))
    assert str(found) == path
    assert not may_change(found, is_shared=False)


def test_which_rates_there_are_may_not_change_where_replicas_share_them() -> None:
    fewer = {"azure": {"limits": {"spend_per_day": 40}}}
    (found,) = changes(parsed(), parsed(**fewer))
    assert not may_change(found, is_shared=True)
    faster = {"azure": {"limits": {"spend_per_day": 40, "requests_per_second": 11}}}
    (found,) = changes(parsed(), parsed(**faster))
    assert may_change(found, is_shared=True)


class Running:
    """What a worker has that takes up its configuration anew; `now` is what is configured."""

    def __init__(self) -> None:
        began = parsed()
        self.now: Settings | Misconfigured = began
        self.missing: str | None = None
        (stream,) = began.streams
        self.routing = Routing(Rules(stream))
        self.limits = Limits(began.accounts["azure"].limits)
        account = Account("azure", "fake", FirstWord(), limits=self.limits, telemetry=Telemetry().account("azure", "x"))
        self.reloading = Reloading(began, self._load, {"t": self.routing}, {"azure": account}, self._check_topics)

    def _load(self) -> Settings:
        if isinstance(self.now, Misconfigured):
            raise self.now
        return self.now

    async def _check_topics(self, _: Settings) -> None:
        await asyncio.sleep(0)
        if self.missing:
            raise Misconfigured(self.missing)


BOTH = {"stream": {"routes": ROUTES}, "azure": {"limits": {"in_flight": 3, "spend_per_day": 5}}}


async def test_what_may_change_changes_at_once() -> None:
    logs.configure(settings.Log(format="json"))
    running = Running()
    running.now = parsed(**BOTH)
    await running.reloading.reload()
    assert [route.to for route in running.routing.rules.stream.routes] == [("billing",)]
    assert running.limits.statistics().in_flight_limit == 3
    assert running.limits.statistics().spend_per_day == 5
    running.now = parsed()
    await running.reloading.reload()
    assert running.routing.rules.stream.routes == ()
    assert running.limits.statistics().in_flight_limit == 16


@pytest.mark.parametrize(
    ("now", "missing", "event", "says"),
    [
        (parsed(**BOTH, kafka={"bootstrap_servers": "k:1", "group_id": "g"}), None, "reload_refused", "take a restart"),
        (Misconfigured("c.yaml: streams: is required"), None, "reload_failed", "c.yaml: streams: is required"),
        (parsed(**BOTH), "streams.t.routes: there is no topic 'billing'", "reload_failed", "no topic 'billing'"),
        (
            parsed(stream={"routes": [{"fields": {"/queue": ["vip"]}, "to": "vip"}]}),
            None,
            "reload_failed",
            "other fields of the record",
        ),
        (
            parsed(stream={"routes": [{"all": [{"class": "a", "at_least": 0.9}, {"not": {"class": "a"}}], "to": "x"}]}),
            None,
            "reload_failed",
            "contradict each other",
        ),
    ],
)
async def test_what_cannot_be_had_changes_nothing_and_is_said(
    now: Settings | Misconfigured, missing: str | None, event: str, says: str
) -> None:
    logs.configure(settings.Log(format="json"))
    running = Running()
    running.now, running.missing = now, missing
    async with messages.kept() as kept:
        await running.reloading.reload()
    (said,) = kept.last()
    assert (said.level, said.event) == ("error", event)
    assert says in said.reason
    assert running.routing.rules.stream.routes == ()
    assert running.limits.statistics().in_flight_limit == 16
    running.now, running.missing = parsed(**BOTH), None
    await running.reloading.reload()
    assert running.limits.statistics().in_flight_limit == 3, "and a later one is taken"
