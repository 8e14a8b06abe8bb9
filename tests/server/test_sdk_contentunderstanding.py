"""The vendor's own client against the server, as a user would point it."""

import base64
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from azure.ai.contentunderstanding import ContentUnderstandingClient
from azure.ai.contentunderstanding.models import (
    AnalysisInput,
    ContentAnalyzer,
    ContentAnalyzerConfig,
    ContentCategoryDefinition,
)
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)

from tests.sdk import environments
from tests.server.conftest import KEY, process
from tests.server.documents import pdf
from tests.server.test_content_understanding import COMPLAINT, INVOICE, MAIL

SOON = {"polling_interval": 0.05}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with process(tmp_path_factory.mktemp("understanding")) as (url, _):
        yield url


@pytest.fixture
def client(url: str) -> Iterator[ContentUnderstandingClient]:
    with ContentUnderstandingClient(url, AzureKeyCredential(KEY)) as client:
        yield client


def analyzer(**config: object) -> ContentAnalyzer:
    described = {
        name: ContentCategoryDefinition(description=one["description"]) for name, one in MAIL["categories"].items()
    }
    return ContentAnalyzer(
        base_analyzer_id="prebuilt-document",
        description="mail",
        config=ContentAnalyzerConfig(content_categories=described, **config),
        models={"completion": "gpt-4.1"},
    )


def test_an_analyzer_is_made_used_changed_and_deleted(client: ContentUnderstandingClient) -> None:
    made = client.begin_create_analyzer("mail", analyzer(), **SOON).result()
    assert (made.analyzer_id, made.status, made.description) == ("mail", "ready", "mail")
    assert list(made.config.content_categories) == ["invoice", "complaint"]
    for text, category in ((INVOICE, "invoice"), (COMPLAINT, "complaint"), ("Happy birthday, Anna", "$OTHER")):
        found = client.begin_analyze_binary("mail", binary_input=text.encode(), **SOON).result()
        assert [content.category for content in found.contents] == [category]
        assert found.contents[0].markdown == text
    with pytest.raises(ResourceExistsError):
        client.begin_create_analyzer("mail", analyzer(), **SOON)
    client.begin_create_analyzer("mail", analyzer(enable_segment=True), allow_replace=True, **SOON).result()
    assert client.get_analyzer("mail").config.enable_segment is True
    assert [one.analyzer_id for one in client.list_analyzers()] == ["mail"]
    client.update_analyzer("mail", ContentAnalyzer(description="post", tags={"a": "b"}))
    assert (client.get_analyzer("mail").description, client.get_analyzer("mail").tags) == ("post", {"a": "b"})
    client.delete_analyzer("mail")
    with pytest.raises(ResourceNotFoundError):
        client.get_analyzer("mail")


def test_a_document_is_split_into_segments(client: ContentUnderstandingClient) -> None:
    client.begin_create_analyzer("auto", analyzer(enable_segment=True), allow_replace=True, **SOON).result()
    pages = pdf([INVOICE, INVOICE, COMPLAINT])
    found = client.begin_analyze("auto", inputs=[AnalysisInput(data=pages, name="a.pdf")], **SOON).result()
    whole, *parts = found.contents
    assert [(one.category, one.start_page_number, one.end_page_number) for one in whole.segments] == [
        ("invoice", 1, 2),
        ("complaint", 3, 3),
    ]
    assert [one.category for one in parts] == ["invoice", "complaint"]
    for segment, part in zip(whole.segments, parts, strict=True):
        begin = segment.span.offset
        assert whole.markdown[begin : begin + segment.span.length] == part.markdown
    client.begin_create_analyzer("pages", analyzer(segment_per_page=True), allow_replace=True, **SOON).result()
    found = client.begin_analyze_binary("pages", binary_input=pages, **SOON).result()
    assert [one.category for one in found.contents[0].segments] == ["invoice", "invoice", "complaint"]


def test_what_cannot_be_read_and_who_may_not_ask(client: ContentUnderstandingClient, url: str) -> None:
    client.begin_create_analyzer("mail", analyzer(), allow_replace=True, **SOON).result()
    poller = client.begin_analyze_binary("mail", binary_input=b"%PDF-1.4 damaged", **SOON)
    with suppress(HttpResponseError):  # which this client raises only where its own thread is fast enough
        poller.wait()
    assert poller.status() == "Failed"
    with pytest.raises(HttpResponseError, match="url is not in a storage container"):
        client.begin_analyze("mail", inputs=[AnalysisInput(url="http://169.254.169.254/")], **SOON)
    with pytest.raises(ResourceNotFoundError):
        client.begin_analyze_binary("nobody", binary_input=b"x", **SOON)
    with (
        ContentUnderstandingClient(url, AzureKeyCredential("wrong")) as stranger,
        pytest.raises(ClientAuthenticationError),
    ):
        stranger.get_analyzer("mail")


def test_results_are_forgotten_and_defaults_kept(client: ContentUnderstandingClient) -> None:
    client.begin_create_analyzer("mail", analyzer(), allow_replace=True, **SOON).result()
    poller = client.begin_analyze_binary("mail", binary_input=b"an invoice", **SOON)
    poller.result()
    client.delete_result(poller.operation_id)
    client.update_defaults(model_deployments={"gpt-4.1": "mine"})
    assert client.get_defaults().model_deployments == {"gpt-4.1": "mine"}


def test_a_restarted_server_knows_its_analyzers(tmp_path: Path) -> None:
    with process(tmp_path) as (url, _), ContentUnderstandingClient(url, AzureKeyCredential(KEY)) as client:
        client.begin_create_analyzer("mail", analyzer(), **SOON).result()
    with process(tmp_path) as (url, _), ContentUnderstandingClient(url, AzureKeyCredential(KEY)) as client:
        assert client.get_analyzer("mail").status == "ready"


def test_the_next_version_of_the_client_is_answered_at_once(url: str) -> None:
    document = pdf([INVOICE, "Happy birthday, Anna", INVOICE])
    environments.run("content-previews", "inline_analysis.py", url, KEY, base64.b64encode(document).decode())
