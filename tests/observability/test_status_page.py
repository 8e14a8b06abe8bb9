"""The status page in a real browser, beside a pipeline at work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from playwright.async_api import Page, ViewportSize, expect

from service import settings
from service.dispatch.account import Account
from service.limits.costs import Tariff
from service.limits.gate import Limits
from service.observability import health, logs, messages
from service.observability.telemetry import Telemetry
from service.streams.memory import MemorySource
from tests.browser import DESK, HOW_TO_GET_ONE, PHONE, Scheme, browser, found, opened
from tests.classifiers import UNWANTED, FirstWord
from tests.limits.test_breaker import failed
from tests.observability.test_health import ANY_PORT, working
from tests.records import written

pytestmark = pytest.mark.skipif(found() is None, reason=f"there is no browser. {HOW_TO_GET_ONE}")

MARKUP = "<img/src=x/onerror=document.title='run'>"


class Seen:
    """A page that is open, what it is the page of, and what the browser complains of."""

    def __init__(self, page: Page, complaints: list[str], source: MemorySource, azure: Account) -> None:
        self.page = page
        self.complaints = complaints
        self.source = source
        self.azure = azure
        self.verdict = page.get_by_role("status")
        self.stream = page.get_by_role("region", name="Stream incoming")
        self.account = page.get_by_role("article", name="Account azure")


@asynccontextmanager
async def seen(scheme: Scheme = "light", size: ViewportSize = DESK, *, clock: bool = False) -> AsyncIterator[Seen]:
    """The page of a worker that has answered four documents and said something."""
    telemetry = Telemetry()
    texts = [f"{MARKUP} x", "billing x", "billing y", f"{UNWANTED} z"]
    limits = Limits(settings.Limits(in_flight=4, spend_per_day=40), Tariff(per_unit=4.0))
    azure = Account("azure", "fake", FirstWord(0), limits=limits, telemetry=telemetry.account("azure", "fake"))
    logs.configure(settings.Log(format="json"))
    async with (
        messages.kept() as last,
        working([written(number, text) for number, text in enumerate(texts)], telemetry, azure) as (source, _),
        health.served(health.app(telemetry, last), ANY_PORT) as url,
        browser() as running,
        opened(running, url, scheme, size, clock=clock) as (page, complaints),
    ):
        structlog.get_logger("service.delivery").error("commit_failed", topic="incoming", reason=f"no broker {MARKUP}")
        yield Seen(page, complaints, source, azure)


async def test_it_shows_what_happens_and_goes_on_showing_it() -> None:
    async with seen() as at:
        await expect(at.verdict).to_have_text("Everything that came is answered.")
        await expect(at.stream).to_contain_text("billing67 % 2")
        await expect(at.stream).to_contain_text("refused by classifier100 % 1")
        await expect(at.account).to_contain_text("well0 of 4 calls are out")
        await expect(at.account).to_contain_text("this day12.00 of 40.00")
        at.source.add(written(4, "refund x"))
        await expect(at.stream).to_contain_text("refund25 % 1")
        await expect(at.stream).to_contain_text("> 60 min median", ignore_case=True)  # of records of 2023
        await expect(at.verdict).to_have_text("Working.")
        assert at.complaints == []


async def test_an_account_that_is_unwell_is_the_first_thing_said() -> None:
    async with seen() as at:
        await expect(at.account).to_contain_text("well")
        failed(at.azure.limits.breaker, asyncio.get_running_loop().time(), times=20)
        await expect(at.verdict).to_have_text("azure: unwell, and left alone but for single calls on trial.")
        await expect(at.account).to_contain_text("unwell, left alone")


async def test_whatever_is_shown_is_text() -> None:
    async with seen() as at:
        await expect(at.stream).to_contain_text(MARKUP)
        await expect(at.page.get_by_role("region", name="Last warnings and errors")).to_contain_text(
            f"commit failed incomingno broker {MARKUP}"
        )
        assert await at.page.locator("img").count() == 0
        assert await at.page.title() == "labelstream"
        assert at.complaints == []


async def test_no_script_but_its_own_runs_and_nothing_is_taken_from_elsewhere() -> None:
    async with seen() as at:
        refused = await at.page.evaluate(
            """async () => {
                const refused = new Set(), later = () => new Promise((done) => setTimeout(done));
                await later();  // until then the browser lets a debugger do what the policy forbids
                const tried = (act) => { try { act(); } catch { refused.add("exception"); } };
                document.addEventListener("securitypolicyviolation", (event) => refused.add(event.effectiveDirective));
                const add = (tag, what) => document.body.append(Object.assign(document.createElement(tag), what));
                tried(() => add("script", { textContent: "window.ran = true" }));
                tried(() => add("script", { src: "https://example.org/script.js" }));
                tried(() => document.body.insertAdjacentHTML("beforeend", "<b>x</b>"));
                tried(() => eval("window.ran = true"));
                add("img", { src: "https://example.org/image.png" });
                add("style", { textContent: "* { color: red }" });
                document.body.setAttribute("style", "color: red");
                await fetch("https://example.org/").catch(() => 0);
                await later();
                return [...refused, window.ran];
            }"""
        )
        directives = {"require-trusted-types-for", "img-src", "style-src-elem", "style-src-attr", "connect-src"}
        assert directives <= set(refused)
        assert refused[-1] is None, "no script ran"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_it_can_be_read_on_a_phone_and_in_either_light(scheme: Scheme, size: ViewportSize) -> None:
    async with seen(scheme, size) as at:
        await expect(at.account).to_be_visible()
        assert await at.page.evaluate("document.documentElement.scrollWidth") <= size["width"], "nothing is cut off"
        assert await at.page.evaluate(_FAINT) == [], "WCAG 2.2, 1.4.3: 4.5 to 1"


_FAINT = """() => {
    const luminance = (colour) => {
        const linear = (n) => n <= .04045 ? n / 12.92 : ((n + .055) / 1.055) ** 2.4;
        const [r, g, b] = colour.match(/[\\d.]+/g).map((n) => linear(n / 255));
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = (element) => {
        const colour = getComputedStyle(element).backgroundColor;
        return colour === 'rgba(0, 0, 0, 0)' ? behind(element.parentElement) : colour;
    };
    const faint = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
        const [dark, light] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => a - b);
        if ((light + .05) / (dark + .05) < 4.5) faint.push(texts.currentNode.data);
    }
    return faint;
}"""


async def test_it_can_be_used_by_keyboard_and_heard() -> None:
    async with seen() as at:
        await expect(at.account).to_be_visible()
        told = await at.page.locator("body").aria_snapshot()
        for part in (
            '- heading "labelstream" [level=1]',
            '- heading "incoming" [level=2]',
            '- heading "Accounts" [level=2]',
            '- button "Pause"',
            "- status: Everything that came is answered.",
            '- img "0 % of the calls that may be out"',
        ):
            assert part in told
        await at.page.keyboard.press("Tab")
        await at.page.keyboard.press("Enter")
        await expect(at.page.get_by_role("button", pressed=True)).to_have_text("Go on")
        await at.page.keyboard.press("Tab")
        assert await at.page.evaluate("document.activeElement.textContent") == "as JSON"


async def settled(page: Page) -> None:
    """Wait for the answer to what the page asks; not by Playwright's own way, which its policy forbids."""
    while await page.evaluate("asking"):
        pass


async def test_it_asks_every_second_but_not_while_it_is_paused_or_hidden() -> None:
    async with seen(clock=True) as at:
        asked = 0

        def count(_: Any) -> None:
            nonlocal asked
            asked += 1

        async def seconds(number: int) -> int:
            """How often the page asks in so many seconds of its clock."""
            nonlocal asked
            asked = 0
            for _ in range(number):
                await at.page.clock.run_for(1000)
                await settled(at.page)
            return asked

        async def hide(hidden: str) -> None:
            await at.page.evaluate(
                f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
                "document.dispatchEvent(new Event('visibilitychange'))"
            )

        await expect(at.account).to_be_visible()
        await at.page.clock.pause_at(4_000_000_000)
        await settled(at.page)
        at.page.on("request", count)
        assert await seconds(5) == 5
        await at.page.get_by_role("button").click()
        await settled(at.page)
        assert await seconds(5) == 0
        await at.page.get_by_role("button").click()
        await settled(at.page)
        assert await seconds(5) == 5
        await hide("true")
        assert await seconds(5) == 0
        await hide("false")
        await settled(at.page)
        assert await seconds(5) == 5


async def test_it_says_so_when_nobody_answers_and_goes_on_when_somebody_does() -> None:
    async with seen() as at:
        await expect(at.account).to_be_visible()
        await at.page.route("**/status", lambda route: route.abort())
        await expect(at.verdict).to_contain_text("No answer. What stands here is of ")
        await at.page.unroute("**/status")
        await expect(at.verdict).to_have_text("Everything that came is answered.")
