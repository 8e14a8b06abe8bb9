"""The scenarios: played on virtual time, and one of them over HTTP by `labelstream bench`."""

import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import orjson
import pytest
import yaml

from service.errors import Misconfigured
from service.simulation.endpoint import Behaviour, Model
from service.simulation.play import Figure, in_process, play
from service.simulation.scenario import Load, Scenario, found, load, shipped
from tests.clock import virtual_time
from tests.commands import PATIENCE, environment

SHORT = """
about: Of what comes, all is answered, and nothing is throttled.
lasts: 1500ms
accounts:
  cloud: {provider: content_safety, limits: {in_flight: 8}}
  jobs: {provider: azure_language, limits: {in_flight: 8}}
streams:
  - {name: posts, classify_with: cloud, batch: {wait: 0s}, capacity: {documents: 50}}
  - {name: tickets, classify_with: jobs, batch: {wait: 20ms}}
load:
  tickets: {arrivals: [{per_second: 100}]}
endpoints:
  cloud: [{takes: 20ms}]
  jobs: [{takes: 50ms}]
expect:
  - {from: 500ms, to: 1500ms, of: posts, documents_per_second: {at_least: 20, at_most: 800}}
  - {from: 500ms, to: 1500ms, of: tickets, documents_per_second: {at_least: 20}, added_latency_p50: {at_most: 1}}
  - {from: 500ms, to: 1500ms, throttled: {at_most: 0}, in_flight: {at_most: 16}}
"""


def played(scenario: Scenario) -> list[Figure]:
    random.seed(1)  # back-off is spread by chance
    return virtual_time(play)(scenario, "https://simulated.example", partial(in_process, scenario))


@pytest.mark.parametrize("name", shipped())
def test_what_should_come_of_a_scenario_does(name: str) -> None:
    assert [str(figure) for figure in played(load(found(name))) if not figure.met] == []


def test_a_figure_that_is_not_what_it_should_be_is_missed() -> None:
    scenario = load(found("quota-40-a-second"))
    (fast,) = scenario.endpoints["cloud"]
    slower = {"cloud": (fast.model_copy(update={"requests_per_second": 20.0}),)}
    figures = played(scenario.model_copy(update={"endpoints": slower}))
    assert [figure.met for figure in figures] == [False, False]


def test_bench_plays_the_same_files_in_real_time(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(SHORT)
    run = subprocess.run(
        [sys.executable, "-m", "service", "bench", str(tmp_path / "short.yaml"), "--json"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (report,) = orjson.loads(run.stdout)
    assert report["scenario"] == "short"
    assert [figure["met"] for figure in report["figures"]] == [True] * 5


def test_bench_says_which_scenarios_there_are() -> None:
    with pytest.raises(Misconfigured, match=r"no scenario 'kneee', did you mean 'knee'\?"):
        found("kneee")
    run = subprocess.run(
        [sys.executable, "-m", "service", "bench", "knees", "--bootstrap", "127.0.0.1:1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.returncode == 2
    assert "without Kafka" in run.stderr


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("lasts", "a while", "lasts: write it as 200ms or 30s"),
        ("abuot", "…", "unknown key 'abuot', did you mean 'about'?"),
        ("expect", [{"to": 9}], "expect[0]: names no figure"),
        ("expect", [{"to": 9, "throttled": {}}], "expect[0].throttled: give at_least, at_most, or both"),
        ("expect", [{"to": 999, "throttled": {"at_most": 0}}], "expect[0].to: is after the end, at 24 s"),
        ("expect", [{"to": 9, "of": "clout", "throttled": {"at_most": 0}}], "expect[0].of: did you mean 'cloud'?"),
        ("endpoints", {"cloud": [{"takse": "1s"}]}, "endpoints.cloud[0]: unknown key 'takse', did you mean 'takes'?"),
        ("endpoints", {}, "endpoints.cloud: is required, for the account of that name"),
        ("load", {"post": {}}, "load.post: there is none of that name, did you mean 'posts'?"),
        ("load", {"posts": {"arrivals": [{"at": 1}]}}, "load.posts.arrivals[0]: give either per_second or burst"),
        ("accounts", {"cloud": {"provider": "comprehend"}}, "accounts.cloud.provider: only content_safety and"),
        (
            "accounts",
            {"cloud": {"provider": "content_safety", "limits": {"in_flihgt": 1}}},
            "accounts.cloud.limits: unknown key 'in_flihgt', did you mean 'in_flight'?",
        ),
        ("streams", [{"name": "posts", "classify_with": "clout"}], "streams[0].classify_with: no account 'clout'"),
    ],
)
def test_what_is_wrong_in_a_scenario_is_told_with_file_and_key(
    tmp_path: Path, where: str, value: object, said: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(found("knee").read_text()) | {where: value}))
    with pytest.raises(Misconfigured) as error:
        load(file)
    assert f"{file}: {said}" in str(error.value)


def test_documents_come_as_the_load_says() -> None:
    times = Load.model_validate(
        {
            "arrivals": [
                {"per_second": 2},
                {"at": 2, "per_second": 0},
                {"at": 5, "per_second": 1},
                {"at": 1, "burst": 2, "every": 4},
            ]
        }
    ).times()
    assert [next(times) for _ in range(11)] == [0, 0.5, 1, 1, 1, 1.5, 5, 5, 5, 6, 7]


def test_an_endpoint_works_at_so_many_calls_and_lets_others_queue() -> None:
    model = Model([Behaviour(takes=1, unevenness=0, at_once=2), Behaviour(at=10, at_once=4), Behaviour(at=20, fails=1)])
    assert [model.asked(1, 1, 0).done_at for _ in range(5)] == [1, 1, 2, 2, 3]
    assert [model.asked(1, 1, 10).done_at for _ in range(5)] == [11, 11, 11, 11, 12]
    assert model.asked(1, 1, 20).status == 503


@pytest.mark.parametrize(("counted", "taken"), [("strictly", [10, 0, 10]), ("on_average", [10, 2, 9])])
def test_a_quota_is_counted_in_any_second_or_on_average(counted: str, taken: list[int]) -> None:
    model = Model([Behaviour.model_validate({"requests_per_second": 10, "counted": counted})])
    asked = [[model.asked(1, 1, now).status for _ in range(20)] for now in (0.3, 0.5, 1.4)]
    assert [statuses.count(200) for statuses in asked] == taken
    assert [statuses.count(429) for statuses in asked] == [20 - each for each in taken]
