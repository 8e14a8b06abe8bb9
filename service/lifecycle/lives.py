"""The life of an account's models, opened as its provider has it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from service import settings
from service.errors import Misconfigured
from service.lifecycle.local import LocalLife
from service.lifecycle.verbs import Life
from service.progress import Waiting


@asynccontextmanager
async def opened(name: str, branch: settings.Account, progress: Waiting) -> AsyncIterator[Life]:
    """The life of an account's models, for the length of the block; `progress` is told of it. Raises Misconfigured."""
    async with AsyncExitStack() as _:
        match branch:
            case settings.Local():
                yield LocalLife(branch, progress)
            case _:
                raise Misconfigured(f"accounts.{name}: {branch.provider} has no life of models here")
