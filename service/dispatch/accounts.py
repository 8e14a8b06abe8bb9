"""From the settings to accounts that are ready to be asked.

What only one kind of account needs is imported when there is one: botocore alone is half a second and 30 MB.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import structlog

from service import settings
from service.dispatch.account import Account, CallProvider, ClassesKnown, JobbingProvider
from service.errors import Misconfigured, Throttled, Unavailable
from service.limits import costs
from service.limits.gate import Limits
from service.observability.telemetry import AccountTelemetry, Telemetry
from service.providers.azure_language import AzureLanguage
from service.providers.content_safety import ContentSafety
from service.providers.content_understanding import ContentUnderstanding
from service.transport.http import PacedClient

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


def classes(account: Account) -> Sequence[str] | None:
    """The classes that an account may give, where it can tell."""
    return account.provider.classes if isinstance(account.provider, ClassesKnown) else None


async def _open(name: str, branch: settings.Account, telemetry: Telemetry, stack: AsyncExitStack) -> Account:
    events, limits = telemetry.account(name, branch.provider), Limits(branch.limits, costs.tariff(branch))
    with _named(name):
        provider = await _OPENERS[type(branch)](branch, limits, events, stack)
    deadline = getattr(branch, "job_deadline", math.inf)  # where there are no jobs, nothing has to be in time
    account = Account(name, branch.provider, provider, limits=limits, telemetry=events, job_deadline=deadline)
    telemetry.watch_account(account.statistics)
    return account


def _azure(provider: Callable[[Any, PacedClient], CallProvider | JobbingProvider]) -> "_Opener":
    async def opened(
        branch: settings.Azure, limits: Limits, events: AccountTelemetry, stack: AsyncExitStack
    ) -> CallProvider | JobbingProvider:
        client = PacedClient(limits, events, branch.request_timeout, on_this_machine=branch.on_this_machine)
        return provider(branch, await stack.enter_async_context(client))

    return opened


async def _comprehend(
    branch: settings.Comprehend, limits: Limits, events: AccountTelemetry, stack: AsyncExitStack
) -> CallProvider:
    from service.providers.comprehend import Comprehend  # noqa: PLC0415
    from service.transport import aws  # noqa: PLC0415  see above

    (client,) = await stack.enter_async_context(aws.opened([aws.COMPREHEND], branch, limits, events))
    endpoint = Comprehend(branch, client)
    await endpoint.warm_up()
    return endpoint


async def _comprehend_jobs(
    branch: settings.ComprehendJobs, limits: Limits, events: AccountTelemetry, stack: AsyncExitStack
) -> JobbingProvider:
    from service.providers.comprehend_jobs import ComprehendJobs  # noqa: PLC0415
    from service.transport import aws  # noqa: PLC0415  see above

    client, s3 = await stack.enter_async_context(aws.opened([aws.COMPREHEND, aws.S3], branch, limits, events))
    jobs = ComprehendJobs(branch, client, s3)
    await jobs.warm_up()
    return jobs


async def _local(branch: settings.Local, _: Limits, events: AccountTelemetry, stack: AsyncExitStack) -> CallProvider:
    from service.providers.local import Local  # noqa: PLC0415  see above

    local = await asyncio.to_thread(Local, branch, events.process_died)
    stack.callback(local.close)
    return local


_Opener = Callable[[Any, Limits, AccountTelemetry, AsyncExitStack], Awaitable[CallProvider | JobbingProvider]]
_OPENERS: Mapping[type[settings.Account], _Opener] = {
    settings.AzureLanguage: _azure(AzureLanguage),
    settings.ContentSafety: _azure(ContentSafety),
    settings.ContentUnderstanding: _azure(ContentUnderstanding),
    settings.Comprehend: _comprehend,
    settings.ComprehendJobs: _comprehend_jobs,
    settings.Local: _local,
}


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Have what is misconfigured say in which account it is."""
    try:
        yield
    except Misconfigured as error:
        raise Misconfigured(f"accounts.{name}: {error}") from None
