import asyncio
import base64
import hashlib
import re
import socket
from collections.abc import Mapping
from typing import Any

import httpx
import structlog

from service import settings
from service.observability import logs, messages
from service.observability.health import app, app_of_workers, served
from service.observability.messages import Messages
from service.observability.telemetry import Telemetry
from tests.observability.test_health import ANY_PORT, asked, working
from tests.records import written


async def test_what_a_worker_does_is_told_by_streams_and_accounts() -> None:
    telemetry = Telemetry()
    records = [written(0, "billing x"), written(1, "billing y"), written(2, "refund z"), written(3, "unwanted")]
    async with asked(telemetry) as http, working(records, telemetry):
        said = (await http.get("/status")).json()
    (stream,) = said["streams"]
    assert {name: stream[name] for name in ("topic", "joined", "draining", "partitions", "lag", "limit")} == {
        "topic": "incoming", "joined": True, "draining": False, "partitions": 1, "lag": 0, "limit": 4000,
    }  # fmt: skip
    assert stream["finished"] == {"classified": 3, "dead_letter": 1}
    assert stream["classes"] == {"billing": 2, "refund": 1}
    assert stream["dead_letters"] == {"refused_by_classifier": 1}
    assert stream["end_to_end"]["counts"][-1] == 4
    assert len(stream["end_to_end"]["seconds"]) == len(stream["end_to_end"]["counts"]) - 1
    (account,) = said["accounts"]
    assert (account["account"], account["breaker"]) == ("azure", {"closed": 1})
    assert (said["workers"], said["messages"]) == ([], [])


class Told:
    """A worker beside this process, as far as the page asks."""

    def __init__(self, name: str, url: str | None, restarts: int = 0) -> None:
        self.name, self.url, self.restarts = name, url, restarts


async def test_several_workers_are_added_up_and_one_that_is_silent_is_named() -> None:
    one, other, nobody = Telemetry(), Telemetry(), socket.create_server(("127.0.0.1", 0))
    silent = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    nobody.close()
    logs.configure(settings.Log(format="json"))
    async with (
        messages.kept() as kept,
        served(app(one, kept), ANY_PORT) as first,
        served(app(other, Messages()), ANY_PORT) as second,
        working([written(0, "billing"), written(1, "refund")], one),
        working([written(0, "billing")], other),
    ):
        structlog.get_logger("service.worker.workers").warning("commit_failed", topic="incoming", reason="no broker")
        both = await _status([Told("0", first), Told("1", second, restarts=2)])
        (stream,) = both["streams"]
        assert (stream["finished"], stream["classes"]) == ({"classified": 3}, {"billing": 2, "refund": 1})
        assert (stream["joined"], stream["partitions"], stream["limit"]) == (True, 2, 8000)
        assert both["workers"] == [
            {"name": "0", "up": True, "restarts": 0},
            {"name": "1", "up": True, "restarts": 2},
        ]
        assert [(each["worker"], each["event"]) for each in both["messages"]] == [("0", "commit_failed")]
        without = await _status([Told("0", first), Told("1", silent)])
        assert [each["up"] for each in without["workers"]] == [True, False]
        assert (without["streams"][0]["joined"], without["streams"][0]["finished"]) == (False, {"classified": 2})


async def _status(workers: list[Told]) -> Mapping[str, Any]:
    async with served(app_of_workers(workers, Messages()), ANY_PORT) as url, httpx.AsyncClient(trust_env=False) as http:
        said: Mapping[str, Any] = (await http.get(f"{url}/status")).json()
        return said


async def test_what_several_workers_have_in_common_is_the_format_with_examples() -> None:
    telemetry = Telemetry()
    requests = telemetry.request_duration.labels("azure", "fake", "submit", "2xx")
    requests.observe(0.02)
    requests.exemplify(0.02, "0af7651916cd43dd8448eb211c80319c")
    async with (
        served(app(telemetry, Messages()), ANY_PORT) as url,
        served(app_of_workers([Told("0", url)], Messages()), ANY_PORT) as both,
        httpx.AsyncClient(base_url=both, trust_env=False) as http,
    ):
        plain = (await http.get("/metrics")).text
        opened = (await http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})).text
        alone = (await http.get(f"{url}/metrics")).text
    bucket = re.compile(
        r'^labelstream_provider_request_duration_seconds_bucket{.*le="0.025".*worker="0".*} 1.0(.*)$', re.MULTILINE
    )
    assert bucket.findall(plain) == [""]
    (example,) = bucket.findall(opened)
    assert example.startswith(' # {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.02')
    assert _names(alone) < _names(plain) == _names(opened)


def _names(page: str) -> set[str]:
    return {line.split("{")[0].split()[0] for line in page.splitlines() if not line.startswith("#")}


async def test_the_page_takes_nothing_from_elsewhere_and_runs_its_own_script_only() -> None:
    async with asked(Telemetry()) as http:
        page = await http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert set(re.findall(r"https?://[^\"']+", page.text)) == {"http://www.w3.org/2000/svg"}, "the name of a format"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\bstyle=", page.text)


async def test_a_look_costs_no_more_than_a_scrape_and_many_can_look() -> None:
    telemetry = Telemetry()
    async with asked(telemetry) as http, working([written(0, "billing")], telemetry):
        all_said = await asyncio.gather(*(http.get("/status") for _ in range(20)))
    assert {each.status_code for each in all_said} == {200}
    assert {each.headers["cache-control"] for each in all_said} == {"no-store"}
