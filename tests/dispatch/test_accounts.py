import asyncio
import multiprocessing
from pathlib import Path
from typing import Any, get_args

import pytest
from structlog.testing import capture_logs

from service import settings
from service.dispatch import accounts
from service.errors import Misconfigured
from service.model.classifier import Classifier
from service.observability.telemetry import Telemetry
from service.providers.azure_language import AzureLanguage
from service.providers.content_safety import ContentSafety
from service.providers.content_understanding import ContentUnderstanding
from service.providers.local import Local
from tests.commands import small_model
from tests.providers.contract import document

RESOURCE: dict[str, Any] = {"endpoint": "https://contoso.cognitiveservices.azure.com", "key": "a-key"}
KINDS = get_args(get_args(settings.Account)[0])


@pytest.mark.parametrize(
    ("branch", "provider"),
    [
        (
            settings.AzureLanguage(
                provider="azure_language", project="p", deployment="d", task="single_label", **RESOURCE
            ),
            AzureLanguage,
        ),
        (settings.ContentSafety(provider="content_safety", **RESOURCE), ContentSafety),
        (
            settings.ContentUnderstanding(provider="content_understanding", classifier="c", **RESOURCE),
            ContentUnderstanding,
        ),
    ],
)
async def test_an_account_is_opened_by_what_its_settings_are(branch: settings.Account, provider: type) -> None:
    async with accounts.opened({"azure": branch}, ["azure"], Telemetry()) as ready:
        assert isinstance(ready["azure"].provider, provider)
        assert ready["azure"].statistics().limits.in_flight_limit == 16


@pytest.mark.parametrize(("those", "at_once"), [({"threads": 3}, 3), ({"processes": 3}, 6)])
async def test_an_embedded_model_is_asked_at_once_as_often_as_keeps_all_busy(
    those: dict[str, int], at_once: int, tmp_path: Path
) -> None:
    branch = settings.Local.model_validate({"provider": "local", "model": small_model(tmp_path / "small"), **those})
    async with accounts.opened({"onsite": branch}, ["onsite"], Telemetry()) as ready:
        assert isinstance(ready["onsite"].provider, Local)
        assert ready["onsite"].statistics().limits.in_flight_limit == at_once


async def test_a_process_of_an_embedded_model_that_died_is_counted_and_logged(tmp_path: Path) -> None:
    model = small_model(tmp_path / "small")
    telemetry, branch = Telemetry(), settings.Local(provider="local", model=model, processes=1)
    async with accounts.opened({"onsite": branch}, ["onsite"], telemetry) as ready:
        provider = ready["onsite"].provider
        assert isinstance(provider, Local)
        await provider.classify([document()])
        (child,) = multiprocessing.active_children()
        child.kill()
        with capture_logs() as logged:
            await asyncio.gather(*(provider.classify([document()]) for _ in range(3)))
    died = {"account": "onsite", "provider": "local"}
    assert telemetry.registry.get_sample_value("labelstream_model_processes_died_total", died) == 1
    assert [line["event"] for line in logged] == ["model_process_died"]
    assert (logged[0]["model"], logged[0]["started"]) == (Classifier.load(model).name, 1)


def test_every_kind_of_account_can_be_opened() -> None:
    assert set(accounts._OPENERS) == set(KINDS)


async def test_what_cannot_be_opened_says_which_account_it_is(tmp_path: Path) -> None:
    branch = settings.Local(provider="local", model=tmp_path / "none")
    with pytest.raises(Misconfigured, match=r"accounts\.onsite: model: "):
        async with accounts.opened({"onsite": branch}, ["onsite"], Telemetry()):
            pass
