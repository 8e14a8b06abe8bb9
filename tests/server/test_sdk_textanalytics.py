"""The vendor's own client, azure-ai-textanalytics, against a server process over loopback."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.ai.textanalytics import MultiLabelClassifyAction, SingleLabelClassifyAction, TextAnalyticsClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

from service.model.classifier import Classifier
from tests.server.conftest import BILLING, CRASH, KEY, process

TICKETS = {"project_name": "tickets", "deployment_name": "production", "polling_interval": 0.02}
TOPICS = {**TICKETS, "project_name": "topics"}


@pytest.fixture(scope="module")
def url(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    deployed = [f"--model={name}/production={models / name}" for name in ("tickets", "topics")]
    with process(tmp_path_factory.mktemp("sdk"), *deployed, "--allow-faults") as (url, _):
        yield url


@pytest.fixture
def client(url: str) -> Iterator[TextAnalyticsClient]:
    with TextAnalyticsClient(url, AzureKeyCredential(KEY)) as client:
        yield client
    rules(url)


def rules(url: str, *given: dict[str, Any]) -> None:
    headers = {"Ocp-Apim-Subscription-Key": KEY}
    httpx.put(f"{url}/_faults", json=given, headers=headers).raise_for_status()


def test_single_label_classes_are_those_of_the_model(client: TextAnalyticsClient, models: Path) -> None:
    found = list(client.begin_single_label_classify([BILLING, CRASH], **TICKETS).result())
    best = [scores[0][:2] for scores in Classifier.load(models / "tickets").classify([BILLING, CRASH])]
    assert [(one.classifications[0].category, one.classifications[0].confidence_score) for one in found] == best
    assert [one.id for one in found] == ["0", "1"]
    assert all(len(one.classifications) == 1 and not one.is_error for one in found)


def test_multi_label_classes_are_those_of_the_model(client: TextAnalyticsClient, models: Path) -> None:
    texts = [f"{BILLING} and {CRASH}", CRASH, "good morning"]
    found = list(client.begin_multi_label_classify(texts, **TOPICS).result())
    expected = Classifier.load(models / "topics").classify(texts)
    assert [[(one.category, one.confidence_score) for one in each.classifications] for each in found] == [
        [score[:2] for score in scores] for scores in expected
    ]
    assert [len(scores) for scores in expected] == [2, 1, 0]


def test_more_than_a_page_of_documents_comes_whole_and_in_order(client: TextAnalyticsClient) -> None:
    texts = [f"{BILLING} {number}" for number in range(25)]
    found = list(client.begin_single_label_classify(texts, show_stats=True, **TICKETS).result())
    assert [one.id for one in found] == [str(number) for number in range(25)]
    assert [one.statistics.character_count for one in found] == [len(text) for text in texts]


def test_a_job_tells_its_name_and_times(client: TextAnalyticsClient) -> None:
    poller = client.begin_single_label_classify([BILLING], display_name="night shift", **TICKETS)
    poller.wait()
    assert poller.status() == "succeeded"
    assert poller.details["display_name"] == "night shift"
    assert (poller.details["expires_on"] - poller.details["created_on"]).total_seconds() == 24 * 3600
    assert poller.details["last_modified_on"] >= poller.details["created_on"]


def test_several_actions_in_one_job(client: TextAnalyticsClient) -> None:
    actions = [SingleLabelClassifyAction("tickets", "production"), MultiLabelClassifyAction("topics", "production")]
    found = list(client.begin_analyze_actions([CRASH, BILLING], actions, polling_interval=0.02).result())
    assert [[one.classifications[0].category for one in each] for each in found] == [["crash"] * 2, ["billing"] * 2]


def test_a_document_that_fails_is_an_error_among_results(client: TextAnalyticsClient, url: str) -> None:
    rules(url, {"on": "submit", "document_error": {"indexes": [1]}})
    found = list(client.begin_single_label_classify([BILLING, BILLING, CRASH], **TICKETS).result())
    assert [one.is_error for one in found] == [False, True, False]
    assert found[1].error.code == "InvalidDocument"


def test_an_unknown_language_is_an_error_of_its_document(client: TextAnalyticsClient) -> None:
    found = list(client.begin_single_label_classify([BILLING], language="tlh", **TICKETS).result())
    assert found[0].error.code == "UnsupportedLanguageCode"


def test_a_failed_task_is_an_error_among_actions(client: TextAnalyticsClient, url: str) -> None:
    rules(url, {"on": "submit", "job": "partial"})
    actions = [SingleLabelClassifyAction("tickets", "production"), MultiLabelClassifyAction("topics", "production")]
    ((single, multi),) = client.begin_analyze_actions([CRASH], actions, polling_interval=0.02).result()
    assert not single.is_error
    assert multi.is_error
    assert multi.error.code == "InternalServerError"


def test_a_failed_job_raises(client: TextAnalyticsClient, url: str) -> None:
    rules(url, {"on": "submit", "job": "failed"})
    with pytest.raises(HttpResponseError, match="InternalServerError"):
        client.begin_single_label_classify([BILLING], **TICKETS).result()


def test_a_job_can_be_cancelled_until_it_has_ended(client: TextAnalyticsClient, url: str) -> None:
    rules(url, {"on": "submit", "job": "slow", "job_seconds": 3600, "times": 1})
    poller = client.begin_single_label_classify([BILLING], **TICKETS)
    poller.cancel()
    poller.wait(timeout=30)
    assert poller.status() == "cancelled"
    ended = client.begin_single_label_classify([BILLING], **TICKETS)
    ended.wait()
    with pytest.raises(HttpResponseError) as refused:
        ended.cancel()
    assert refused.value.status_code == 400


def test_a_wrong_key_is_an_authentication_error(url: str) -> None:
    with (
        TextAnalyticsClient(url, AzureKeyCredential("wrong")) as client,
        pytest.raises(ClientAuthenticationError) as refused,
    ):
        client.begin_single_label_classify([BILLING], **TICKETS)
    assert refused.value.error.code == "401"


def test_ids_that_repeat_are_refused(client: TextAnalyticsClient) -> None:
    with pytest.raises(HttpResponseError) as refused:
        client.begin_single_label_classify([{"id": "1", "text": BILLING}, {"id": "1", "text": CRASH}], **TICKETS)
    assert (refused.value.status_code, refused.value.error.code) == (400, "InvalidDocument")


def test_too_many_documents_are_refused(client: TextAnalyticsClient) -> None:
    with pytest.raises(HttpResponseError) as refused:
        client.begin_single_label_classify(["x"] * 26, **TICKETS)
    assert refused.value.error.code == "InvalidDocumentBatch"


def test_an_unknown_project_is_not_found(client: TextAnalyticsClient) -> None:
    with pytest.raises(ResourceNotFoundError) as refused:
        client.begin_single_label_classify([BILLING], **{**TICKETS, "project_name": "unknown"})
    assert refused.value.error.code == "ProjectNotFound"


def test_a_throttled_submission_is_sent_again_after_the_time_it_was_told(client: TextAnalyticsClient, url: str) -> None:
    rules(url, {"on": "submit", "status": 429, "retry_after": 1, "times": 1})
    began = time.monotonic()
    (found,) = client.begin_single_label_classify([BILLING], **TICKETS).result()
    assert time.monotonic() - began >= 1.0
    assert found.classifications[0].category == "billing"


def test_a_poll_that_meets_an_outage_is_sent_again(client: TextAnalyticsClient, url: str) -> None:
    rules(url, {"on": "poll", "status": 503, "times": 1})
    (found,) = client.begin_single_label_classify([BILLING], **TICKETS).result()
    assert not found.is_error


def test_a_lost_job_is_not_found(client: TextAnalyticsClient, url: str) -> None:
    rules(url, {"on": "submit", "job": "lost"})
    poller = client.begin_single_label_classify([BILLING], **TICKETS)
    with pytest.raises(HttpResponseError) as lost:  # of a poll this client tells the status, not by class
        poller.result()
    assert (lost.value.status_code, lost.value.error.code) == (404, "NotFound")
