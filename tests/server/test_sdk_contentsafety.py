"""The vendor's SDK for Content Safety, as its users write it, against a server of its own over HTTP."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.ai.contentsafety import BlocklistClient, ContentSafetyClient
from azure.ai.contentsafety.aio import ContentSafetyClient as AsyncContentSafetyClient
from azure.ai.contentsafety.models import (
    AddOrUpdateTextBlocklistItemsOptions,
    AnalyzeTextOptions,
    AnalyzeTextOutputType,
    RemoveTextBlocklistItemsOptions,
    TextBlocklist,
    TextBlocklistItem,
    TextCategory,
)
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

from tests.sdk import environments
from tests.server.conftest import KEY, process
from tests.server.content_safety import NOT_OF_IT, OF_IT


@pytest.fixture(scope="module")
def url(harm_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = ["--harm-model", f"Hate={harm_models / 'drugs'}", "--allow-faults", "--log-level", "warning"]
    with process(tmp_path_factory.mktemp("served") / "data", *options) as (url, _):
        yield url


@pytest.fixture
def client(url: str) -> Iterator[ContentSafetyClient]:
    with ContentSafetyClient(url, AzureKeyCredential(KEY)) as client:
        yield client


@pytest.fixture
def blocklists(url: str) -> Iterator[BlocklistClient]:
    with BlocklistClient(url, AzureKeyCredential(KEY)) as client:
        yield client


def severities(found: Any) -> dict[str, int]:
    return {one.category: one.severity for one in found.categories_analysis}


def test_text_is_analyzed(client: ContentSafetyClient) -> None:
    found = severities(client.analyze_text(AnalyzeTextOptions(text=OF_IT)))
    assert found[TextCategory.HATE] in {4, 6}
    assert [found[name] for name in ("SelfHarm", "Sexual", "Violence")] == [0, 0, 0]
    assert severities(client.analyze_text({"text": NOT_OF_IT})) == dict.fromkeys(found, 0)


def test_the_answer_is_what_was_asked_for(client: ContentSafetyClient) -> None:
    found = client.analyze_text(
        AnalyzeTextOptions(
            text=OF_IT,
            categories=[TextCategory.HATE, TextCategory.SELF_HARM],
            output_type=AnalyzeTextOutputType.EIGHT_SEVERITY_LEVELS,
        )
    )
    assert severities(found)["Hate"] >= 4
    assert set(severities(found)) == {"Hate", "SelfHarm"}


async def test_text_is_analyzed_from_asynchronous_code(url: str) -> None:
    async with AsyncContentSafetyClient(url, AzureKeyCredential(KEY)) as client:
        found = await client.analyze_text(AnalyzeTextOptions(text=OF_IT))
    assert severities(found)["Hate"] >= 4


def test_every_operation_of_blocklists(client: ContentSafetyClient, blocklists: BlocklistClient) -> None:
    made = blocklists.create_or_update_text_blocklist(
        blocklist_name="words", options=TextBlocklist(blocklist_name="words", description="first")
    )
    assert (made.blocklist_name, made.description) == ("words", "first")
    changed = blocklists.create_or_update_text_blocklist(
        blocklist_name="words", options=TextBlocklist(blocklist_name="words", description="second")
    )
    assert changed.description == blocklists.get_text_blocklist(blocklist_name="words").description == "second"
    assert [one.blocklist_name for one in blocklists.list_text_blocklists()] == ["words"]

    added = blocklists.add_or_update_blocklist_items(
        blocklist_name="words",
        options=AddOrUpdateTextBlocklistItemsOptions(
            blocklist_items=[TextBlocklistItem(text="scalper", description="d"), TextBlocklistItem(text="tout")]
        ),
    )
    scalper, tout = added.blocklist_items
    assert scalper.description == "d"
    listed = blocklists.list_text_blocklist_items(blocklist_name="words", maxpagesize=1)
    assert [one.text for one in listed] == ["scalper", "tout"]
    assert [one.text for one in blocklists.list_text_blocklist_items(blocklist_name="words", top=1, skip=1)] == ["tout"]
    got = blocklists.get_text_blocklist_item(blocklist_name="words", blocklist_item_id=tout.blocklist_item_id)
    assert got.text == "tout"

    for halt, categories in ((False, 4), (True, 0)):
        found = client.analyze_text(
            AnalyzeTextOptions(text="You tout!", blocklist_names=["words"], halt_on_blocklist_hit=halt)
        )
        (match,) = found.blocklists_match
        assert (match.blocklist_name, match.blocklist_item_text) == ("words", "tout")
        assert match.blocklist_item_id == tout.blocklist_item_id
        assert len(found.categories_analysis) == categories

    blocklists.remove_blocklist_items(
        blocklist_name="words",
        options=RemoveTextBlocklistItemsOptions(blocklist_item_ids=[tout.blocklist_item_id]),
    )
    assert [one.text for one in blocklists.list_text_blocklist_items(blocklist_name="words")] == ["scalper"]
    blocklists.delete_text_blocklist(blocklist_name="words")
    with pytest.raises(ResourceNotFoundError) as caught:
        blocklists.get_text_blocklist(blocklist_name="words")
    assert caught.value.error.code == "ResourceNotFound"


def test_refusals_are_understood(url: str, client: ContentSafetyClient) -> None:
    with pytest.raises(HttpResponseError) as caught:
        client.analyze_text(AnalyzeTextOptions(text="x" * 10_001))
    assert caught.value.status_code == 400
    assert caught.value.error.code == "InvalidRequestBody"
    with (
        ContentSafetyClient(url, AzureKeyCredential("wrong")) as stranger,
        pytest.raises(ClientAuthenticationError),
    ):
        stranger.analyze_text(AnalyzeTextOptions(text="x"))


def test_a_throttled_call_is_made_again(client: ContentSafetyClient, url: str) -> None:
    faults = [{"on": "classify", "status": 429, "retry_after": 0, "times": 2}]
    headers = {"Ocp-Apim-Subscription-Key": KEY}
    assert httpx.put(f"{url}/_faults", json=faults, headers=headers).status_code == 200
    assert severities(client.analyze_text(AnalyzeTextOptions(text=NOT_OF_IT)))["Hate"] == 0
    assert httpx.get(f"{url}/_faults", headers=headers).json()[0]["applied"] == 2


def test_the_next_version_of_the_client_asks_the_same_server(url: str) -> None:
    environments.run("content-previews", "moderation.py", url, KEY, OF_IT)
