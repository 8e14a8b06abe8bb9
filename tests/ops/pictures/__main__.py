"""Pictures of the boards for the README, from a run that a real Prometheus scrapes: `make pictures`.

There is no Grafana in it: panels are drawn by Grafana's own widgets (board.jsx) where the board has them, which looks
like Grafana and is not. Takes Node with npm, Prometheus, Redis, a browser (tests/browser.py) and six minutes.
"""

import asyncio
import math
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import orjson
from confluent_kafka import Producer
from PIL import Image
from playwright.async_api import ViewportSize

from service.model import examples
from service.model.train import train
from tests import browser
from tests.collector import collecting
from tests.ops.test_boards import FILES
from tests.ops.test_queries import TOPIC, Scene, as_grafana_asks, run, scraping
from tests.redis_server import redis_server

ROOT = Path(__file__).parents[3]
BUILD = ROOT / "build" / "pictures"
DOCS = ROOT / "docs"
SECONDS, STEP = 300, 3
_YESTERDAY = {"delivery": 0.14, "billing": 0.12, "refund": 0.11, "returns": 0.13, "technical": 0.12}
_YESTERDAY |= {"account_access": 0.13, "product_question": 0.12, "cancellation": 0.13}
WIDTH = 1440
TALL = {"overview": 1260, "providers": 1260, "results": 1260}
_ESBUILD = (
    "--bundle",
    "--platform=browser",
    "--main-fields=browser,module,main",
    "--loader:.ttf=empty",
    "--loader:.woff2=empty",
    "--loader:.svg=dataurl",
    "--define:global=window",
    '--define:process.env.NODE_ENV="production"',
)


def bundled() -> Path:
    """The page without its data, made with what npm has."""
    here = Path(__file__).parent
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "board.jsx"):
        shutil.copy(here / name, BUILD / name)
    (BUILD / "nothing.js").write_text("module.exports = {}\n", encoding="utf-8")
    npm = ["npm", "install", "--legacy-peer-deps", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(npm, cwd=BUILD, check=True)
    esbuild = ["node_modules/.bin/esbuild", "board.jsx", "--outfile=page.js", "--log-level=error", *_ESBUILD]
    subprocess.run([*esbuild, "--alias:tty=./nothing.js", "--alias:util=./nothing.js"], cwd=BUILD, check=True)
    return BUILD


async def feed(broker: Producer) -> None:
    """Feed sample tickets, now more and now less of them, a few of them bad."""
    chance = random.Random(4)  # noqa: S311  repeatable
    with as_file(files("service.samples") / "tickets.jsonl") as path:
        rows = examples.read(path)
    for number in count():
        row = chance.choice(rows[1::2])  # what the model has not learnt
        value = orjson.dumps({"id": f"{row.id}/{number}", "text": f"{row.text} ({number}, ann@mail.example)"})
        broker.produce(TOPIC, b"{" if chance.random() < 0.001 else value)
        broker.poll(0)
        await asyncio.sleep(1 / (40 + 25 * math.sin(time.monotonic() / 30)))


async def asked(http: httpx.AsyncClient, board: Mapping[str, Any], until: float) -> dict[int, list[dict[str, Any]]]:
    """What the queries of each panel give, over the time that was waited."""
    found: dict[int, list[dict[str, Any]]] = {}
    for panel in board["panels"]:
        for query in panel.get("targets", []):
            expr = as_grafana_asks(query["expr"]).replace("[1m]", "[15s]")
            span = {"start": str(until - SECONDS), "end": str(until), "step": str(STEP)}
            answer = (await http.get("/query_range", params={"query": expr, **span})).json()
            found.setdefault(panel["id"], []).extend(_series(query, answer["data"]["result"], until))
    return found


def _series(query: Mapping[str, Any], results: Sequence[Mapping[str, Any]], until: float) -> list[dict[str, Any]]:
    times = [until - SECONDS + STEP * i for i in range(SECONDS // STEP + 1)]
    series = []
    for result in results:
        values = {round(float(at), 1): float(value) for at, value in result["values"]}
        known = [values.get(round(at, 1)) for at in times]
        name = query.get("legendFormat") or query["refId"]
        for label, value in result["metric"].items():
            name = name.replace(f"{{{{{label}}}}}", value)
        series.append(
            {
                "query": query.get("legendFormat") or query["refId"],
                "name": name,
                "labels": result["metric"],
                "times": [1000 * at for at in times],
                "values": [None if each is None or not math.isfinite(each) else each for each in known],
            }
        )
    return series


async def draw(name: str, board: Mapping[str, Any], data: Mapping[int, Any], until: float) -> None:
    """Write the top of a board as docs/board-NAME.png."""
    shown = {"board": board, "data": data, "from": 1000 * (until - SECONDS), "to": 1000 * until, "width": WIDTH - 16}
    told = orjson.dumps(shown, option=orjson.OPT_NON_STR_KEYS).decode().replace("<", "\\u003c")
    head = "<!doctype html><meta charset=utf-8><link rel=stylesheet href=page.css><body>"
    page = f"{head}<script>window.shown = {told}</script><script src=page.js></script>"
    (BUILD / f"{name}.html").write_text(page, encoding="utf-8")
    size = ViewportSize(width=WIDTH, height=TALL[name])
    address = (BUILD / f"{name}.html").as_uri()
    async with browser.browser() as running, browser.opened(running, address, "dark", size) as (opened, _):
        await opened.wait_for_selector("#board canvas", timeout=30_000)
        await asyncio.sleep(2)  # curves are drawn when their panels have been measured
        picture = Image.open(BytesIO(await opened.screenshot()))
    picture.convert("RGB").quantize(96, Image.Quantize.MAXCOVERAGE).save(DOCS / f"board-{name}.png", optimize=True)


async def main() -> None:
    """Let it run for a while, ask, and draw."""
    bundled()
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name)) as redis, collecting() as traces:
        folder = Path(name)
        with as_file(files("service.samples") / "tickets.jsonl") as path:
            rows = examples.read(path)
        scene = Scene(folder / "model", folder / "other", traces.url, _YESTERDAY)
        train(rows[::2], task="single_label", name="tickets").save(scene.served)
        train(rows[::4], task="single_label", name="tickets").save(scene.tried)
        async with run(folder, redis, scene, feed) as told, scraping(folder, told, _YESTERDAY) as http:
            await asyncio.sleep(SECONDS + 20)
            until = time.time() - 2
            boards = {board: (FILES[board], await asked(http, FILES[board], until)) for board in FILES}
    for board, (drawn, data) in boards.items():
        await draw(board, drawn, data, until)


if __name__ == "__main__":
    asyncio.run(main())
