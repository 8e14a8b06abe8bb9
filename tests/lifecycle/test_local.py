"""Versions of an embedded model: made, found, put in use in one step, and deleted."""

import asyncio
import threading
from collections.abc import Awaitable
from pathlib import Path

import pytest

from service import settings
from service.errors import Misconfigured
from service.lifecycle.verbs import Doomed, Evaluation, Labelled, Wanted
from service.model.classifier import FILE_NAME, Classifier
from service.model.examples import ExamplesError
from service.model.train import train
from tests.lifecycle.documents import classes
from tests.lifecycle.telling import Telling, life
from tests.server.conftest import BILLING, CRASH, SINGLE

ROWS = SINGLE * 2
OTHERS = [row._replace(text=f"{row.text} now") for row in ROWS]
ALL = Doomed("all")


def branch(folder: Path) -> settings.Local:
    return settings.Local(provider="local", model=folder)


async def test_versions_are_made_deployed_asked_and_deleted(tmp_path: Path) -> None:
    folder, telling = tmp_path / "models" / "tickets", Telling()
    async with life(branch(folder), telling) as it:
        assert await it.list() == []
        trained = await it.train(Labelled(ROWS))
        name = trained.model.name
        assert telling.steps == [f"training {name} on 24 documents"]
        assert telling.shares[-1] == 1
        assert trained.evaluation is not None
        assert trained.evaluation.documents == 24
        assert not (folder / FILE_NAME).exists(), "what is trained is not in use yet"
        assert (await it.train(Labelled(ROWS[::-1]))).model == trained.model
        assert len(telling.steps) == 1, "the same rows are not learnt again"
        assert (await it.deploy(Wanted())).model == name
        assert await classes(branch(folder), [BILLING, CRASH]) == ["billing", "crash"]
        used = Classifier.load(folder).digest
        second = await it.train(Labelled(OTHERS, "second"))
        assert (second.model.name, second.model.deployed_as) == ("second", ())
        assert Classifier.load(folder).digest == used, "what is in use stays until another is deployed"
        assert await it.evaluate(None) == trained.evaluation
        assert await it.evaluate("second") == second.evaluation
        assert [(one.name, one.deployed_as) for one in await it.list()] == [("second", ()), (name, (str(folder),))]
        deployed = await it.deploy(Wanted())
        assert (deployed.model, deployed.deployed_as) == ("second", str(folder))
        assert "until it is started again" in deployed.notes[0]
        with pytest.raises(Misconfigured, match="second is in use: deploy another version first"):
            await it.delete(Doomed("model", "second"))
        await it.delete(Doomed("model", name))
        assert [one.name for one in await it.list()] == ["second"]
        await it.delete(ALL)
        assert list(folder.rglob("*.zip")) == []
        with pytest.raises(Misconfigured, match="there is nothing to delete"):
            await it.delete(ALL)


async def test_a_model_that_was_made_elsewhere_is_shown_as_it_is(tmp_path: Path) -> None:
    made = train(ROWS, task="single_label", name="tickets")
    made.save(tmp_path)
    async with life(branch(tmp_path)) as it:
        (model,) = await it.list()
        assert (model.name, model.deployed_as) == (f"tickets@{made.classifier.digest}", (str(tmp_path),))
        with pytest.raises(Misconfigured, match="has no figures of its own: give a file of labelled rows"):
            await it.evaluate(None)
        await it.delete(ALL)
        assert await it.list() == []


async def test_what_is_not_there_is_named_beside_what_is(tmp_path: Path) -> None:
    async with life(branch(tmp_path)) as it:
        nothing: list[tuple[Awaitable[object], str]] = [
            (it.deploy(Wanted()), r"there is no version in .* to deploy: train one"),
            (it.evaluate(None), "no model is in use"),
        ]
        for asked, told in nothing:
            with pytest.raises(Misconfigured, match=told):
                await asked
        await it.train(Labelled(ROWS, "one"))
        strange: list[tuple[Awaitable[object], str]] = [
            (it.deploy(Wanted(model="two")), r"there is no version 'two' in .*; there is one"),
            (it.evaluate("two"), "there is no version 'two'"),
            (it.delete(Doomed("model", "two")), "there is no version 'two'"),
            (it.delete(Doomed("deployment", "one")), "has no deployment"),
            (it.deploy(Wanted(deployment="production")), "--as: means nothing"),
            (it.train(Labelled(ROWS, "../two")), "a version is named by up to 50"),
        ]
        for asked, told in strange:
            with pytest.raises(Misconfigured, match=told):
                await asked


async def test_a_file_has_no_versions(tmp_path: Path) -> None:
    file = train(ROWS, task="single_label", name="tickets").save(tmp_path)
    with pytest.raises(Misconfigured, match="is a file, and versions are kept in a folder"):
        async with life(branch(file)):
            pass


async def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    async with life(branch(tmp_path)) as it:
        await it.train(Labelled(ROWS, "one"))
        (tmp_path / "versions" / "one" / FILE_NAME).write_bytes(b"nothing")
        with pytest.raises(Misconfigured, match=r"one/model.zip: is not a model that can be used"):
            await it.list()


async def test_rows_that_nothing_can_be_learnt_from_leave_what_is_there(tmp_path: Path) -> None:
    async with life(branch(tmp_path)) as it:
        trained = await it.train(Labelled(ROWS, "one"))
        with pytest.raises(ExamplesError):
            await it.train(Labelled(ROWS[:3], "one"))
        assert await it.list() == [trained.model]


async def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "versions").write_bytes(b"a file in its place")
    async with life(branch(tmp_path)) as it:
        with pytest.raises(Misconfigured, match="versions/one cannot be written"):
            await it.train(Labelled(ROWS, "one"))


class Holding(Telling):
    """Holds what trains at its first step, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.let_go = threading.Event(), threading.Event()

    def advance(self, share: float) -> None:
        super().advance(share)
        self.held.set()
        self.let_go.wait(30)


async def test_a_training_that_nobody_waits_for_ends_and_leaves_nothing(tmp_path: Path) -> None:
    holding = Holding()
    async with life(branch(tmp_path), holding) as it:
        waiting = asyncio.create_task(it.train(Labelled(ROWS, "one")))
        await asyncio.to_thread(holding.held.wait, 30)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    holding.let_go.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert holding.shares == [0.0]
    assert holding.broken_off == "no longer training; nothing of it is kept"
    assert not (tmp_path / "versions").exists()


async def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    async with life(branch(tmp_path)) as it:
        trained = await it.train(Labelled(ROWS, "one"))
        assert trained.evaluation is not None
        assert Evaluation.parse(trained.evaluation.to_json()) == trained.evaluation
        (tmp_path / "versions" / "one" / "evaluation.json").write_text('{"task": "single_label"}')
        with pytest.raises(Misconfigured, match="one has no figures of its own"):
            await it.evaluate("one")
