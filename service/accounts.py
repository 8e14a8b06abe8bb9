"""From the settings to accounts that are ready to be asked."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import structlog

from service import aws, settings
from service.dispatch import Account
from service.errors import Misconfigured, Throttled, Unavailable
from service.limits import Limits
from service.providers.azure_language import AzureLanguage
from service.providers.comprehend import Comprehend
from service.providers.comprehend_jobs import ComprehendJobs
from service.providers.content_safety import ContentSafety
from service.providers.content_understanding import ContentUnderstanding
from service.providers.local import Local
from service.telemetry import AccountTelemetry, Telemetry
from service.transport import PacedClient

_Azure = settings.AzureLanguage | settings.ContentSafety | settings.ContentUnderstanding

log = structlog.get_logger(__name__)


@asynccontextmanager
async def opened(
    accounts: Mapping[str, settings.Account], names: Iterable[str], telemetry: Telemetry
) -> AsyncIterator[dict[str, Account]]:
    """The accounts of these names, for the length of the block. Raises Misconfigured."""
    async with AsyncExitStack() as stack:
        yield {name: await _open(name, accounts[name], telemetry, stack) for name in dict.fromkeys(names)}


async def probe(accounts: Iterable[Account]) -> None:
    """See that each account lets us in and that at least one can be reached.

    Raises Misconfigured for the first that would never answer, Unavailable when none can be reached.
    """
    accounts = list(accounts)
    failures: list[Unavailable] = []
    for account in accounts:
        try:
            await account.provider.probe()
        except Throttled as error:  # it knows us, and pacing is what will have to change
            log.warning("account_throttled", account=account.name, reason=str(error))
        except Unavailable as error:
            failures.append(Unavailable(f"accounts.{account.name}: {error}"))
            log.warning("account_unavailable", account=account.name, reason=str(error))
        except Misconfigured as error:
            raise Misconfigured(f"accounts.{account.name}: {error}") from None
    if failures and len(failures) == len(accounts):
        raise failures[0]


async def _open(name: str, branch: settings.Account, telemetry: Telemetry, stack: AsyncExitStack) -> Account:
    events = telemetry.account(name, branch.provider)
    if isinstance(branch, settings.Local):
        limits = Limits(settings.Limits(in_flight=branch.threads))
        try:
            local = await asyncio.to_thread(Local, branch)
        except Misconfigured as error:
            raise Misconfigured(f"accounts.{name}: {error}") from None
        stack.callback(local.close)
        account = Account(name, branch.provider, local, limits=limits, telemetry=events)
    elif isinstance(branch, settings.Comprehend):
        account = await _comprehend(name, branch, events, stack)
    elif isinstance(branch, settings.ComprehendJobs):
        account = await _comprehend_jobs(name, branch, events, stack)
    else:
        account = await _azure(name, branch, events, stack)
    telemetry.watch_account(account.statistics)
    return account


async def _azure(name: str, branch: _Azure, events: AccountTelemetry, stack: AsyncExitStack) -> Account:
    limits = Limits(branch.limits)
    http = await stack.enter_async_context(
        PacedClient(limits, events, branch.request_timeout, on_this_machine=branch.on_this_machine)
    )
    if isinstance(branch, settings.ContentSafety):
        return Account(name, branch.provider, ContentSafety(branch, http), limits=limits, telemetry=events)
    jobs = (
        AzureLanguage(branch, http)
        if isinstance(branch, settings.AzureLanguage)
        else ContentUnderstanding(branch, http)
    )
    return Account(name, branch.provider, jobs, limits=limits, telemetry=events, job_deadline=branch.job_deadline)


async def _comprehend(
    name: str, branch: settings.Comprehend, events: AccountTelemetry, stack: AsyncExitStack
) -> Account:
    limits = Limits(branch.limits)
    with _named(name):
        (client,) = await stack.enter_async_context(aws.opened([aws.COMPREHEND], branch, limits, events))
    endpoint = Comprehend(branch, client)
    await endpoint.warm_up()
    return Account(name, branch.provider, endpoint, limits=limits, telemetry=events)


async def _comprehend_jobs(
    name: str, branch: settings.ComprehendJobs, events: AccountTelemetry, stack: AsyncExitStack
) -> Account:
    limits = Limits(branch.limits)
    with _named(name):
        client, s3 = await stack.enter_async_context(aws.opened([aws.COMPREHEND, aws.S3], branch, limits, events))
    jobs = ComprehendJobs(branch, client, s3)
    await jobs.warm_up()
    return Account(name, branch.provider, jobs, limits=limits, telemetry=events, job_deadline=branch.job_deadline)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Have what is misconfigured say in which account it is."""
    try:
        yield
    except Misconfigured as error:
        raise Misconfigured(f"accounts.{name}: {error}") from None
