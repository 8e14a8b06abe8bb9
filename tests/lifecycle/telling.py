"""A wait whose words are kept."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.console import Console

from service import settings
from service.lifecycle import lives
from service.lifecycle.verbs import Life
from service.progress import Waiting


class Telling(Waiting):
    """Keeps what it is told: titles of steps, shares that were new, and lines."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.steps: list[str] = []
        self.shares: list[float] = []
        self.lines: list[str] = []
        self._heard = asyncio.Event()

    async def heard(self, what: Callable[[], object]) -> None:
        """Wait until what was told is enough."""
        while not what():
            self._heard.clear()
            await self._heard.wait()

    async def heard_of_training(self) -> None:
        """Wait until a service has begun to train."""
        await self.heard(lambda: any(step.startswith("training") for step in self.steps))

    def step(self, title: str) -> None:
        self.steps.append(title)
        self._heard.set()

    def advance(self, share: float) -> None:
        self.shares.append(share)

    def say(self, words: str) -> None:
        self.lines.append(words)
        self._heard.set()


@asynccontextmanager
async def life(branch: settings.Account, telling: Telling | None = None) -> AsyncIterator[Life]:
    """The life of an account that is called `it`."""
    async with lives.opened("it", branch, telling or Telling()) as opened:
        yield opened
