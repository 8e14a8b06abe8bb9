"""The life of an account's models, opened as its provider has it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from service import settings
from service.lifecycle.azure_language import ProjectLife
from service.lifecycle.azure_language_2021 import PreviewLife
from service.lifecycle.containers import Container, container, is_on_this_machine
from service.lifecycle.content_safety import CategoryLife
from service.lifecycle.content_understanding import DescribedLife
from service.lifecycle.local import LocalLife
from service.lifecycle.verbs import Life
from service.limits.gate import Limits
from service.observability.telemetry import AccountTelemetry, Telemetry
from service.progress import Waiting
from service.transport.http import PacedClient


@asynccontextmanager
async def opened(name: str, branch: settings.Account, progress: Waiting) -> AsyncIterator[Life]:
    """The life of an account's models, for the length of the block; `progress` is told of it. Raises Misconfigured."""
    telemetry = Telemetry().account(name, branch.provider)
    async with AsyncExitStack() as stack:
        match branch:
            case settings.AzureLanguage():
                form = ProjectLife if branch.model_id is None else PreviewLife
                http, place = await _http(branch, telemetry, stack), await _container(branch, telemetry, stack)
                yield form(branch, http, place, progress)
            case settings.Local():
                yield LocalLife(branch, progress)
            case settings.ContentSafety():
                http, place = await _http(branch, telemetry, stack), await _container(branch, telemetry, stack)
                yield CategoryLife(branch, http, place, progress)
            case settings.ContentUnderstanding():
                yield DescribedLife(branch, await _http(branch, telemetry, stack), progress)
            case settings.Comprehend() | settings.ComprehendJobs():
                yield await _comprehend(branch, telemetry, stack, progress)


async def _http(branch: settings.Azure, telemetry: AccountTelemetry, stack: AsyncExitStack) -> PacedClient:
    limits = Limits(branch.limits)
    client = PacedClient(limits, telemetry, branch.request_timeout, on_this_machine=branch.on_this_machine)
    return await stack.enter_async_context(client)


async def _container(
    branch: settings.AzureLanguage | settings.ContentSafety, telemetry: AccountTelemetry, stack: AsyncExitStack
) -> Container | None:
    """Where training data is put; what the account may be asked for does not hold for the storage account."""
    if branch.training is None:
        return None
    place = branch.training.place.get_secret_value()
    client = PacedClient(
        Limits(settings.Limits()), telemetry, branch.request_timeout, on_this_machine=is_on_this_machine(place)
    )
    return container(place, await stack.enter_async_context(client))


async def _comprehend(
    branch: settings.Comprehend | settings.ComprehendJobs,
    telemetry: AccountTelemetry,
    stack: AsyncExitStack,
    progress: Waiting,
) -> Life:
    from service.lifecycle.comprehend_lives import EndpointLife, JobsLife  # noqa: PLC0415
    from service.transport import aws  # noqa: PLC0415  botocore is for those who need it

    opening = aws.opened([aws.COMPREHEND, aws.S3], branch, Limits(branch.limits), telemetry)
    client, s3 = await stack.enter_async_context(opening)
    if isinstance(branch, settings.Comprehend):
        return EndpointLife(branch, client, s3, progress)
    return JobsLife(branch, client, s3, progress)
