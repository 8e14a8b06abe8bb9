"""The requests of a project's life are those that are documented, of both eras, in their order."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from service import settings
from service.lifecycle.verbs import Doomed, Labelled, Wanted
from service.model.examples import Example
from tests.lifecycle.telling import Telling, life
from tests.providers.conftest import Replay
from tests.providers.documented import Documented
from tests.server.conftest import KEY


def put(folder: Path) -> dict[str, str]:
    """The documents of a folder that stands for a container."""
    return {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.txt"))}


async def test_the_authoring_of_today(replay: Replay, tmp_path: Path) -> None:
    documented = Documented.read("azure_language_authoring/2023-04-01/project.json")
    imported = documented.requests[3]["body"]["assets"]["documents"]
    account: dict[str, Any] = {
        "provider": "azure_language", "endpoint": replay.url, "key": KEY, "project": "proj", "deployment": "prod",
        "task": "single_label", "training": {"container": f"c={tmp_path}"},
    }  # fmt: skip
    replay.answer(*documented.replies)
    telling = Telling()
    async with life(settings.AzureLanguage.model_validate(account), telling) as it:
        trained = await it.train(
            Labelled([Example(f"{n}", f"text {n}", ("A" if n % 2 else "B",)) for n in range(12)], "m1")
        )
        assert (trained.model.name, trained.evaluation and trained.evaluation.documents) == ("m1", 2)
        assert telling.shares[-3:] == [0, 0.75, 1]
        assert (await it.deploy(Wanted())).deployed_as == "proj/prod"
        for doomed in (Doomed("deployment", "prod"), Doomed("model", "m1"), Doomed("all")):
            await it.delete(doomed)
    texts = put(tmp_path)
    key = min(texts).rpartition("-")[0]
    assert texts.keys() == {one["location"].replace("doc", key) for one in imported}
    body = json.loads(replay.requests[3].body.replace(key.encode(), b"doc"))
    for one, told in zip(body["assets"]["documents"], imported, strict=True):
        row = int(texts[one["location"].replace("doc", key)].removeprefix("text "))
        assert one["class"] == {"category": "A" if row % 2 else "B"}
        one["class"] = told["class"]  # which document has which number is not documented
    replay.requests[3] = replace(replay.requests[3], body=json.dumps(body).encode())
    documented.check(replay, KEY)


async def test_the_authoring_of_2021(replay: Replay, tmp_path: Path) -> None:
    documented = Documented.read("azure_language_authoring/v1.0-preview.2/project.json")
    training = {"container": f"MyContainer={tmp_path}", "project": "MyProject", "language": "en-us"}
    account: dict[str, Any] = {
        "provider": "azure_language", "endpoint": replay.url, "key": KEY, "model_id": "none_yet", "task": "multi_label",
        "api_version": "v3.1-preview.ct.1", "training": training,
    }  # fmt: skip
    replay.answer(*documented.replies)
    async with life(settings.AzureLanguage.model_validate(account)) as it:
        rows = [Example(f"{n}", f"text {n}", ("A", "B") if n % 2 else ("A",)) for n in range(20)]
        trained = await it.train(Labelled(rows, "MyModel"))
        assert trained.evaluation is not None
        assert (trained.evaluation.documents, trained.evaluation.hamming_loss) == (2, 0)
        deployed = await it.deploy(Wanted(model="MyModel"))
        assert deployed.deployed_as == "3fa85f64-5717-4562-b3fc-2c963f66afa6_MultiClassification_latest"
        await it.delete(Doomed("all"))
    labels = json.loads((tmp_path / "MyProject-labels.json").read_bytes())
    assert labels["classifiers"] == [{"name": "A"}, {"name": "B"}]
    assert set(labels["documents"][0]) == {"location", "language", "classifiers"}
    assert {one["location"] for one in labels["documents"]} == put(tmp_path).keys()
    documented.check(replay, KEY)
