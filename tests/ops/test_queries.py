"""Every query of the boards and every rule, asked of a real Prometheus that has scraped a real run.

The run is `labelstream run` and `labelstream serve` in this process, a broker (librdkafka's mock, as in the
demonstration), and documents of which some are bad; the server throttles and fails for a while. What a board compares
with yesterday and a week ago is written into Prometheus before it starts.
"""

import asyncio
import re
import socket
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import orjson
import yaml
from confluent_kafka import Producer

from service import settings
from service.review.watch import watch
from service.server.app import Registration, ServeOptions, serving
from service.worker import worker
from tests.collector import Collected, collecting
from tests.kafka.workers import small_model
from tests.ops.prometheus import Alert, alerts, groups, program, recorded
from tests.ops.test_boards import FILES, queries
from tests.redis_server import PASSWORD, RedisServer, redis_server

WHOSE = {"namespace": "support", "job": "support/triage"}
TOPIC = "tickets.incoming"
PATIENCE = 60.0
VARIABLES = ("namespace", "job", "instance", "topic", "account")

BANDS = {"to 0.5": 20.0, "to 0.7": 30.0, "to 0.9": 90.0, "to 0.99": 100.0, "above 0.99": 60.0}
"""Results of an hour of yesterday by their scores."""

FAULTS = """
- {on: submit, status: 429, retry_after: 1, times: 2}
- {on: submit, status: 503, times: 1}
- {on: submit, document_error: {every: 7}}
"""


def documents() -> Iterator[bytes]:
    for number in range(150):
        yield orjson.dumps({"id": f"T-{number}", "lang": "en", "text": f"the parcel number {number} has not arrived"})
        yield orjson.dumps({"id": f"P-{number}", "text": f"my password {number} is not accepted: a@b.example"})
    yield from (b"{", b"not JSON", b'{"id": "empty", "text": ""}')


def configured(bootstrap: str, url: str, redis_port: int, scene: "Scene") -> settings.Settings:
    return settings.parse(
        {
            "kafka": {"bootstrap_servers": bootstrap, "group_id": "triage", "fetch_max_wait": "20ms"},
            "accounts": {
                "azure": {
                    "provider": "azure_language",
                    "endpoint": url,
                    "key": "k" * 32,
                    "project": "tickets",
                    "deployment": "production",
                    "task": "single_label",
                    "limits": {"in_flight": "adaptive", "spend_per_hour": 100, "spend_per_day": 1000},
                    "price": {"per_unit": 0.001},
                },
                "second": {
                    "provider": "azure_language",
                    "endpoint": url,
                    "key": "k" * 32,
                    "project": "tickets",
                    "deployment": "production",
                    "task": "single_label",
                },
                "other": {"provider": "local", "model": str(scene.tried)},
            },
            "streams": [
                {
                    "name": "tickets",
                    "input": TOPIC,
                    "output": "tickets.classified",
                    "dead_letter": "tickets.dead",
                    "document": {"language": "/lang"},
                    "classify_with": "azure",
                    "unsure": {"when": {"best": "access"}, "ask": "second"},
                    "shadow": {"ask": "other", "share": 1},
                    "batch": {"documents": 10, "wait": "20ms"},
                    "redact": {"kinds": ["email"]},
                    "routes": [{"best_below": 0.6, "to": "tickets.review"}],
                    "baseline": dict(scene.shares),
                    "review": {"topic": "tickets.review", "decisions": "tickets.decisions"},
                    "note_jobs": False,  # the mock makes no compacted topics
                }
            ],
            "redis": {"host": "127.0.0.1", "port": redis_port, "password": PASSWORD},
            "tracing": {"endpoint": scene.traces, "sample": 1},
            "health": {"port": 0},
        },
        "these tests",
    )


class Scene(NamedTuple):
    """What a run is made of: the model that is served, the one that is tried, who takes traces, and shares of classes.

    These are normal, and are as they were yesterday.
    """

    served: Path
    tried: Path
    traces: str
    shares: Mapping[str, float]


@asynccontextmanager
async def run(
    folder: Path, redis: RedisServer, scene: Scene, feed: Callable[[Producer], Coroutine[None, None, None]]
) -> AsyncIterator[Mapping[str, str]]:
    """A worker at work on what is fed; gives the addresses of what is to be scraped."""
    broker = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    for topic in (TOPIC, "tickets.classified", "tickets.dead", "tickets.review", "tickets.decisions"):
        broker.list_topics(topic, timeout=10)  # asking for a topic makes it
    at = next(iter(broker.list_topics(timeout=10).brokers.values()))
    for number, days in enumerate((2, 0)):
        then = int(1000 * (time.time() - days * 86_400))
        about = {"question": f"tickets:{number}", "proposed": ["access"]}
        asked = {"best": {"name": "access"}, "text": "a", "review": about}
        broker.produce("tickets.review", orjson.dumps(asked), timestamp=then)
        said = {"question": f"tickets:{number}", "labels": ["access"]}
        broker.produce("tickets.decisions", orjson.dumps(said), timestamp=then)
    assert broker.flush(10) == 0
    (faults := folder / "faults.yaml").write_text(FAULTS, encoding="utf-8")
    registered = Registration.parse(f"tickets/production={scene.served}")
    options = ServeOptions(data=folder / "served", port=0, keys=("k" * 32,), models=(registered,), faults=faults)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    started, watched = loop.create_future(), loop.create_future()
    async with serving(options) as url, asyncio.TaskGroup() as tasks:
        configuration = configured(f"{at.host}:{at.port}", url, redis.port, scene)
        tasks.create_task(watch(configuration, stop, watched.set_result))
        told = {"reviews": await watched, "serve": url}
        tasks.create_task(worker.work(configuration, stop, started.set_result))
        feeding = tasks.create_task(feed(broker))
        try:
            told["worker"] = await started
            yield {name: each.removeprefix("http://") for name, each in told.items()}
        finally:
            feeding.cancel()
            stop.set()


async def once(broker: Producer) -> None:
    """Feed the documents over several scrapes: what has its first series by a result has a rate from the second on."""
    for number, document in enumerate(documents()):
        broker.produce(TOPIC, document)
        if number % 20 == 0:
            assert broker.flush(10) == 0
            await asyncio.sleep(0.5)
    assert broker.flush(10) == 0


def yesterday_and_a_week_ago(shares: Mapping[str, float]) -> str:
    """What the rules would have recorded then, in the form that promtool makes blocks of."""
    name = 'namespace_job_topic_label:labelstream_labels:{}1h{{label="{}",%s}}'
    scores = 'namespace_job_topic_band:labelstream_confidence:increase1h{{band="{}",%s}}'
    series = {
        **{name.format("share", label): share for label, share in shares.items()},
        **{name.format("increase", label): 300 * share for label, share in shares.items()},
        **{scores.format(band): results for band, results in BANDS.items()},
        'namespace_job_topic_language:labelstream_record_languages:share1h{language="en",%s}': 1.0,
        "namespace_job_topic:labelstream_record_characters:mean1h{%s}": 40.0,
        "namespace_job_topic:labelstream_records_finished:rate1h{%s}": 2.0,
        "namespace_job_topic:labelstream_confidence:unsure1h{%s}": 0.1,
        "namespace_job_topic:labelstream_trial_records:agreement6h{%s}": 0.9,
        "namespace_job_topic:labelstream_trial_records:compared6h{%s}": 300.0,
    }
    labels = ",".join(f'{name}="{value}"' for name, value in {**WHOSE, "topic": TOPIC}.items())
    lines = []
    for name, value in series.items():
        lines.append(f"# TYPE {name.partition('{')[0]} gauge")
        for days in (7, 1):
            then = int(time.time()) - days * 86_400
            lines.extend(f"{name % labels} {value} {then + 60 * minute}" for minute in range(-6, 7))
    kept = [line for number, line in enumerate(lines) if line not in lines[:number]]
    return "\n".join([*kept, "# EOF", ""])


@asynccontextmanager
async def scraping(
    folder: Path, targets: Mapping[str, str], shares: Mapping[str, float]
) -> AsyncIterator[httpx.AsyncClient]:
    """Prometheus itself, with our rules; yesterday classes had these shares."""
    (past := folder / "past.txt").write_text(yesterday_and_a_week_ago(shares), encoding="utf-8")
    data = folder / "data"
    promtool = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(past), str(data)]
    making = await asyncio.create_subprocess_exec(*promtool, stdout=DEVNULL, stderr=DEVNULL)
    assert await making.wait() == 0
    hurried = folder / "all.rules.yml"  # without the intervals that some groups take their time by
    every = [{"name": group["name"], "rules": group["rules"]} for group in groups()]
    hurried.write_text(yaml.safe_dump({"groups": every}), encoding="utf-8")
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(hurried)],
        "scrape_configs": [
            {
                "job_name": WHOSE["job"],
                "static_configs": [
                    {"targets": [target], "labels": {"namespace": WHOSE["namespace"], "pod": pod}}
                    for pod, target in targets.items()
                ],
            }
        ],
    }
    (file := folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        at = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            *(program("prometheus"), f"--config.file={file}", f"--storage.tsdb.path={data}"),
            *(f"--web.listen-address={at}", "--log.level=warn", "--enable-feature=exemplar-storage"),
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://{at}/api/v1", trust_env=False) as http:
            yield http
    finally:
        server.kill()
        await server.wait()


def as_grafana_asks(expr: str) -> str:
    expr = expr.replace("$__rate_interval", "1m")
    for name in VARIABLES:
        expr = expr.replace(f"${name}", ".*")
    return expr


def without_judging(expr: str) -> str:
    """Each comparison says 0 or 1, instead of letting through what it is true of: a healthy run has data, too."""
    return re.sub(r"(==|[<>]=?) (?!bool)", r"\1 bool ", expr)


def parts(alert: Alert) -> Iterable[str]:
    """What an alert joins, each for itself."""
    for part in re.split(r"\s(?:and|unless)(?: on \([^)]*\))?\s", alert.expr):
        # A worker whose credentials are refused ends, so that a run that goes on has other errors.
        yield without_judging(part).replace('error_type="auth"', 'error_type!=""')


def asked() -> dict[str, str]:
    """Every query, by where it stands."""
    found = {}
    for name, board in FILES.items():
        for number, expr in enumerate(queries(board)):
            found[f"{name} {number}: {expr}"] = without_judging(as_grafana_asks(expr))
    for each in recorded():
        found[each.name] = f'{each.name}{{namespace="{WHOSE["namespace"]}"}}'
    for alert in alerts():
        for number, part in enumerate(parts(alert)):
            found[f"{alert.name} {alert.window} {number}: {part}"] = part
    return found


async def answer(http: httpx.AsyncClient, path: str, **parameters: str) -> Any:
    try:
        response = await http.get(path, params=parameters)
    except httpx.ConnectError:
        return []
    if response.status_code == 503:  # it is starting
        return []
    body = response.json()
    assert body["status"] == "success", (parameters, body)
    return body["data"]


async def lacking(http: httpx.AsyncClient, left: Mapping[str, str]) -> dict[str, str]:
    """The queries that have no data yet."""
    answers = {name: await answer(http, "/query", query=expr) for name, expr in left.items()}
    return {name: left[name] for name, data in answers.items() if not data or not data["result"]}


async def traces_of(http: httpx.AsyncClient, metric: str) -> set[str]:
    """The traces that are examples of a histogram."""
    now = time.time()
    found = await answer(http, "/query_exemplars", query=metric, start=str(now - 600), end=str(now + 1))
    return {each["labels"]["trace_id"] for series in found for each in series["exemplars"]}


async def choices(http: httpx.AsyncClient, board: Mapping[str, Any]) -> dict[str, list[str]]:
    """What each variable of a board lets one choose from."""
    found = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asks = re.fullmatch(r"label_values\((.*), (\w+)\)", as_grafana_asks(variable["query"]))
            assert asks, variable["name"]
            found[variable["name"]] = await answer(http, f"/label/{asks[2]}/values", **{"match[]": asks[1]})
    return found


async def test_every_query_has_data_of_a_real_run(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis, collecting() as collected:
        await _every_query_has_data(tmp_path, redis, collected)


async def _every_query_has_data(tmp_path: Path, redis: RedisServer, collected: Collected) -> None:
    shares = {"delivery": 0.6, "access": 0.4}
    served, tried = small_model(tmp_path / "model"), small_model(tmp_path / "other", parcels="post")
    scene = Scene(served, tried, collected.url, shares)
    async with run(tmp_path, redis, scene, once) as told, scraping(tmp_path, told, shares) as http:
        left, deadline = asked(), time.monotonic() + PATIENCE
        while left := await lacking(http, left):
            if time.monotonic() > deadline:
                raise AssertionError("no data for:\n" + "\n".join(left))
            await asyncio.sleep(0.5)
        for board in FILES.values():
            for name, values in (await choices(http, board)).items():
                assert values, name
        groups = (await answer(http, "/rules"))["groups"]
        ill = {rule["name"]: rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")}
        assert ill == {}
        pods = (await answer(http, "/query", query='count by (pod) ({pod!=""})'))["result"]
        series = {each["metric"]["pod"]: int(each["value"][1]) for each in pods}
        assert set(series) == {"worker", "reviews", "serve"}
        assert max(series.values()) < 2000
        assert (examples := await traces_of(http, "labelstream_record_end_to_end_seconds_bucket")) != set()
    assert examples <= {span.trace_id.hex() for span in collected.spans}
