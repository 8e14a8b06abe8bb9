"""The pictures of the status page in the README, drawn from a demonstration at work: `python -m tests.picture`.

Takes a browser (tests/browser.py) and a minute and a half; the numbers are those of the machine that it is run on.
"""

import asyncio
import re
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.async_api import ViewportSize

from tests import browser

DOCS = Path(__file__).parents[1] / "docs"
_SIZE = ViewportSize(width=1000, height=700)
_SECONDS = 40.0
_SCHEMES: tuple[browser.Scheme, ...] = ("light", "dark")


async def draw(folder: Path) -> None:
    """Run a demonstration, look at its page for a while, and write `status-light.png` and `status-dark.png`."""
    command = [sys.executable, "-m", "service", "demo", "--documents", "1000000"]
    demonstration = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert demonstration.stderr is not None
    try:
        async for line in demonstration.stderr:
            if told := re.search(rb"http://[\d.:]+/", line):
                await _look(told[0].decode(), folder)
                break
    finally:
        demonstration.terminate()
        await demonstration.communicate()


async def _look(url: str, folder: Path) -> None:
    async with browser.browser() as running:
        for scheme in _SCHEMES:
            async with browser.opened(running, url, scheme, _SIZE) as (page, _):
                await asyncio.sleep(_SECONDS)  # the curve of a while
                picture = Image.open(BytesIO(await page.screenshot(full_page=True)))
                picture.convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE).save(
                    folder / f"status-{scheme}.png", optimize=True
                )


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS))
