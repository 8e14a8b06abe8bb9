"""Human review on a real broker: people are asked, they decide, and a model is trained on what they have corrected."""

import signal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.commands import TEXTS, labelstream, rows, small_model, started, tree, write_config
from tests.kafka.test_run import health
from tests.kafka.tickets import MAKE_TOPIC
from tests.kafka.topics import fill, read, size

EACH = 12


def decided(question: object, *labels: str) -> bytes:
    return orjson.dumps({"question": question, "labels": labels})


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_what_people_correct_is_joined_to_its_result_and_learnt_from(
    bootstrap: str, topic: MAKE_TOPIC, tmp_path: Path, delivery: str
) -> None:
    topics = incoming, classified, _ = topic(2), topic(), topic()
    asked, decisions = topic(3), topic(3)
    settings = tree(
        bootstrap,
        {"provider": "local", "model": str(small_model(tmp_path / "small"))},
        topics,
        redact={},
        routes=[{"name": "all", "best_below": 1, "to": asked}],
        review={"topic": asked, "decisions": decisions},
        delivery=delivery,
    )
    config = write_config(tmp_path / "c.yaml", settings)
    texts = {f"{label}-{n}": f"{text.format(n)} a{n}@example.org" for label, text in TEXTS.items() for n in range(EACH)}
    fill(bootstrap, incoming, [orjson.dumps({"id": name, "text": text}) for name, text in texts.items()])
    with started(tmp_path, "run", config) as worker:
        worker.wait_until(lambda: len(read(bootstrap, asked)) == len(read(bootstrap, classified)) == len(texts))
        assert worker.ended_by(signal.SIGTERM) == 0

    questions = {body["id"]: body for body in (orjson.loads(each.value or b"") for each in read(bootstrap, asked))}
    assert questions.keys() == texts.keys()
    wrong, right = TEXTS
    names = {name: body["review"]["question"] for name, body in questions.items()}
    assert all(body["review"]["rules"] == ["all"] for body in questions.values())
    assert all(body["review"]["classes_offered"] == sorted(TEXTS) for body in questions.values())
    assert all("[EMAIL_1]" in body["text"] and "@" not in body["text"] for body in questions.values())
    said = [decided(names[f"{wrong}-{n}"], right) for n in range(4)]
    said += [decided(names[f"{wrong}-{n}"], wrong) for n in range(4, EACH)]
    said += [decided(names[f"{right}-{n}"], right) for n in range(EACH)]
    fill(bootstrap, decisions, said)
    assert size(bootstrap, decisions) == 2 * EACH
    fill(
        bootstrap, decisions, [said[0], decided("tickets:nowhere-0-1", right), decided(names[f"{right}-1"], "x"), b"{"]
    )

    settings["health"] = {"port": 0}
    watching = started(tmp_path, "reviews", "watch", write_config(tmp_path / "watched.yaml", settings))
    with watching as watcher, health(watcher) as client:
        watcher.wait_until(lambda: f'label="{right}"}} ' in (page := metrics(client)) and 'became="malformed"' in page)
        page = metrics(client)
        assert f'{{became="corrected",label="{wrong}"}} 4.0' in page
        assert f'{{became="agreed",label="{right}"}} {EACH}.0' in page
        assert watcher.ended_by(signal.SIGTERM) == 0

    out = tmp_path / "corrected.jsonl"
    for _ in range(2):  # nothing is kept but in the topics, so that it is the same each time
        summary = exported(config, out)
        assert summary["decisions"] == {
            "agreed": 2 * EACH - 4,
            "corrected": 4,
            "late": 0,
            "replaced": 0,
            "duplicate": 1,
            "unknown": 1,
            "malformed": 2,
        }
        assert summary["agreement"] == {wrong: pytest.approx(1 - 4 / EACH), right: 1.0}
    corrected = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert sorted(row["text"] for row in corrected) == sorted(questions[f"{wrong}-{n}"]["text"] for n in range(4))
    assert [row["labels"] for row in corrected] == [[right]] * 4

    assert exported(config, out, "--which", "all")["exported"] == 2 * EACH
    with out.open("ab") as more:
        more.writelines(orjson.dumps(row) + b"\n" for row in rows())
    trained = labelstream("models", "train", out, "--out", tmp_path / "better", "--json")
    assert trained.returncode == 0, trained.stderr


def metrics(client: httpx.Client) -> str:
    """What is shown of decisions, without the topic, labels in order."""
    found = text_string_to_metric_families(client.get("/metrics").text)
    decisions = next((each for each in found if each.name == "labelstream_review_decisions"), None)
    return "\n".join(
        f'{{became="{each.labels["became"]}",label="{each.labels["label"]}"}} {each.value}'
        for each in (decisions.samples if decisions is not None else ())
    )


def exported(config: Path, out: Path, *options: str) -> dict[str, Any]:
    run = labelstream("reviews", "export", "--config", config, "--out", out, *options, "--json")
    assert run.returncode == 0, run.stderr
    summary: dict[str, Any] = orjson.loads(run.stdout)
    return summary


def test_who_asks_nobody_is_told_how_to(bootstrap: str, topic: MAKE_TOPIC, tmp_path: Path) -> None:
    settings = tree(bootstrap, {"provider": "local", "model": "nowhere"}, (topic(), topic(), topic()))
    config = write_config(tmp_path / "c.yaml", settings)
    run = labelstream("reviews", "export", "--config", config, "--out", tmp_path / "rows.jsonl")
    assert run.returncode == 2
    assert "streams.tickets.review: there is none" in run.stderr
