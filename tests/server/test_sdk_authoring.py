"""The vendor's authoring client, its 6.0 beta and its bridge of 2021, in environments of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.ai.textanalytics import TextAnalyticsClient
from azure.core.credentials import AzureKeyCredential

from tests.sdk import environments
from tests.server.conftest import KEY, TEXTS, process

COUNT = 12


@pytest.fixture
def container(tmp_path: Path) -> Path:
    folder = tmp_path / "tickets"
    folder.mkdir()
    for label, texts in TEXTS.items():
        for number in range(COUNT):
            (folder / f"{label}-{number}.txt").write_text(texts[number % len(texts)], encoding="utf-8")
    return folder


@pytest.fixture
def url(tmp_path: Path, container: Path, models: Path) -> Iterator[str]:
    given = ("--container", f"tickets={container}", "--model", f"shop/production={models / 'tickets'}")
    with process(tmp_path / "data", *given) as (url, _):
        yield url


def test_a_project_lives_from_its_labels_to_its_answers(url: str) -> None:
    environments.run("textanalytics-6", "life_of_a_project.py", url, KEY, str(COUNT))


def test_the_bridge_version_is_spoken_by_its_own_client(url: str) -> None:
    environments.run("textanalytics-5.2", "bridge.py", url, KEY, "shop")


def test_the_client_of_today_asks_the_same_server(url: str) -> None:
    with TextAnalyticsClient(url, AzureKeyCredential(KEY)) as client:
        asked = {"project_name": "shop", "deployment_name": "production", "polling_interval": 0.05}
        (found,) = client.begin_single_label_classify(["I cannot log in"], **asked).result()
        assert found.classifications[0].category == "account"
