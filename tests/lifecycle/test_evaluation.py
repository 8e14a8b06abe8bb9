"""Labelled rows go through an account as documents do, and what comes back is compared with their labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service import settings
from service.errors import Misconfigured
from service.lifecycle.evaluation import measured
from service.model import evaluate as evaluation
from service.model.classifier import Classifier
from service.model.examples import Example, ExamplesError
from service.model.train import train
from tests.providers.conftest import Received, Replay, Reply
from tests.server.conftest import MULTI, SINGLE

KEY = "c4narykey0123456789abcdef"


def local(folder: Path, rows: Sequence[Example], task: Any) -> settings.Local:
    train(rows, task=task, name="small").save(folder / "model")
    return settings.Local(provider="local", model=folder / "model")


async def test_an_account_is_measured_as_its_model_is(tmp_path: Path) -> None:
    done: list[float] = []
    branch = local(tmp_path, SINGLE, "single_label")
    rows = [*SINGLE, Example("odd", "half an emoji \ud83d", ("billing",)), Example("none", "no label", ())]
    asked, own = (
        await measured("it", branch, rows, done.append),
        evaluation.evaluate(Classifier.load(branch.model), rows),
    )
    assert (asked.documents, asked.accuracy, asked.f1_micro) == (own.documents, own.accuracy, own.f1_micro)
    assert asked.confusion == own.confusion
    assert asked.ece == pytest.approx(own.ece)


async def test_any_number_of_labels(tmp_path: Path) -> None:
    branch = local(tmp_path, MULTI, "multi_label")
    asked = await measured("it", branch, MULTI, lambda _: None)
    assert asked.documents == len(MULTI)
    assert asked.f1_micro > 0.8


async def test_a_document_that_is_refused_or_of_no_class_is_wrong(replay: Replay) -> None:
    given = {"provider": "content_understanding", "endpoint": replay.url, "key": KEY, "classifier": "mail"}
    branch = settings.ContentUnderstanding.model_validate(given)
    jobs: list[bytes] = []

    def answer(received: Received) -> Reply:
        if received.method == "POST":
            if received.body == b"refused":
                return Reply(400, {"error": {"code": "InvalidRequest", "message": "No."}})
            jobs.append(received.body)
            where = f"http://{{host}}/contentunderstanding/classifierResults/{len(jobs) - 1}"
            return Reply(202, {"id": "x", "status": "Running"}, {"Operation-Location": where})
        if "classifierResults" not in received.path:
            return Reply(200, {"classifierId": "mail", "status": "ready"})
        text = jobs[int(received.path.rpartition("/")[2])].decode()
        contents = [{"category": text.split()[0]}] if text != "nothing" else [{}]
        return Reply(200, {"status": "Succeeded", "result": {"contents": contents}})

    replay.otherwise = answer
    texts = ["invoice one", "invoice two", "refused", "nothing"]
    found = await measured("it", branch, [Example(text, text, ("invoice",)) for text in texts], lambda _: None)
    assert (found.documents, found.accuracy) == (4, 0.5)
    assert found.confusion == {("invoice", "invoice"): 2, ("invoice", "(none)"): 2}
    assert found.ece is None  # the service gives no scores


async def test_a_custom_category_is_measured_by_itself(replay: Replay) -> None:
    branch = settings.ContentSafety.model_validate(
        {
            "provider": "content_safety",
            "endpoint": replay.url,
            "key": KEY,
            "category": "Drugs",
            "api_version": "2024-09-15-preview",
        }
    )

    def answer(received: Received) -> Reply:
        if received.method == "GET":
            return Reply(200, {"value": [{"categoryName": "Drugs", "version": 1, "status": "Succeeded"}]})
        return Reply(200, {"customCategoryAnalysis": {"detected": b"pills" in received.body}})

    replay.otherwise = answer
    rows = [
        Example("1", "pills for sale", ("Drugs", "sales")),
        Example("2", "powder for sale", ("Drugs",)),
        Example("3", "cake for sale", ("sales",)),
    ]
    found = await measured("it", branch, rows, lambda _: None)
    assert [(one.name, one.true_positives, one.false_negatives) for one in found.classes] == [("Drugs", 1, 1)]
    assert not found.unknown
    assert found.ece is None


async def test_rows_that_do_not_fit(tmp_path: Path) -> None:
    branch = local(tmp_path, SINGLE, "single_label")
    with pytest.raises(ExamplesError, match="row 'two' has several labels"):
        await measured("it", branch, [Example("two", "text", ("a", "b"))], lambda _: None)
    with pytest.raises(ExamplesError, match="no row has a label"):
        await measured("it", branch, [Example("none", "text", ())], lambda _: None)
    nobody = settings.Local(provider="local", model=tmp_path / "nobody")
    with pytest.raises(Misconfigured, match=r"accounts.it: model"):
        await measured("it", nobody, SINGLE, lambda _: None)
