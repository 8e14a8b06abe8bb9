"""A real browser for the status page: Chromium or Chrome, wherever a machine has it, driven by Playwright."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from playwright.async_api import Browser, Page, ViewportSize, async_playwright

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
HOW_TO_GET_ONE = "On Debian: apt-get install chromium-headless-shell; else Chromium or Chrome, as of any source."
Scheme = Literal["light", "dark"]
DESK, PHONE = ViewportSize(width=1180, height=900), ViewportSize(width=360, height=740)


def found() -> str | None:
    """Where a browser is, if there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser for the length of the block."""
    async with async_playwright() as playwright:
        # Without its sandbox, as that cannot be had as root; it is shown nothing but our own page.
        running = await playwright.chromium.launch(executable_path=found(), args=["--no-sandbox"])
        try:
            yield running
        finally:
            await running.close()


@asynccontextmanager
async def opened(
    running: Browser, url: str, scheme: Scheme, size: ViewportSize = DESK, *, clock: bool = False
) -> AsyncIterator[tuple[Page, list[str]]]:
    """A page, and all that the browser complains of: errors of scripts, of the policy, of what it cannot load.

    With a `clock`, its time can be stopped.
    """
    context = await running.new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce")
    page, complaints = await context.new_page(), list[str]()
    page.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        if clock:
            await page.clock.install()
        await page.goto(url)
        yield page, complaints
    finally:
        await context.close()
