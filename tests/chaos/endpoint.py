"""An endpoint of Azure Language's job API that counts what it is asked for, and misbehaves when it is told to."""

import asyncio
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

POISON = "poison"
"""A submission that holds a document with this word is refused as a whole."""
_PATIENCE = 30.0


class Endpoint:
    """Knows the jobs in which each text was accepted; `trouble` is one of `TROUBLES`, or empty."""

    def __init__(self, seconds: float = 0.2) -> None:
        self.accepted: dict[str, list[str]] = {}
        self.trouble = ""
        self.url = ""
        self._seconds = seconds
        self._jobs: dict[str, tuple[float, list[dict[str, str]]]] = {}

    def submitted_twice(self, noted: Collection[str]) -> tuple[int, int]:
        """How many texts were paid for again though their job had been noted, and how many as it had not been."""
        again = [jobs[:-1] for jobs in self.accepted.values() if len(jobs) > 1]
        in_spite = sum(any(job in noted for job in earlier) for earlier in again)
        return in_spite, len(again) - in_spite

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answer on a free port, in a thread, for the length of the block."""
        app = Starlette(routes=self._routes())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
            thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
            thread.start()
            try:
                yield
            finally:
                server.should_exit = server.force_exit = True
                thread.join(_PATIENCE)

    @property
    def account(self) -> dict[str, Any]:
        """The settings of an account that asks here."""
        return {
            "provider": "azure_language",
            "endpoint": self.url,
            "key": "chaos",
            "project": "tickets",
            "deployment": "production",
            "task": "single_label",
            "request_timeout": "5s",
            "limits": {"in_flight": 8},
        }

    def _routes(self) -> list[Route]:
        return [
            Route("/language/analyze-text/jobs", self._submit, methods=["POST"]),
            Route("/language/analyze-text/jobs/{job}", self._poll, methods=["GET"]),
            Route("/language/analyze-text/jobs/{job}:cancel", self._cancel, methods=["POST"]),
        ]

    async def _submit(self, request: Request) -> Response:
        documents: list[dict[str, str]] = orjson.loads(await request.body())["analysisInput"]["documents"]
        if (answer := await self._troubled()) is not None:
            return answer
        if any(POISON in document["text"] for document in documents):
            refusal = {"code": "InvalidRequest", "innererror": {"code": "InvalidDocument", "message": "no"}}
            return JSONResponse({"error": {"message": "no", **refusal}}, 400)
        job = str(uuid.uuid4())
        for each in documents:
            self.accepted.setdefault(each["text"], []).append(job)
        self._jobs[job] = time.monotonic() + self._seconds, documents
        where = f"{self.url}/language/analyze-text/jobs/{job}?{request.url.query}"
        return Response(status_code=202, headers={"operation-location": where})

    async def _poll(self, request: Request) -> Response:
        if (answer := await self._troubled()) is not None:
            return answer
        due, documents = self._jobs.get(request.path_params["job"], (0.0, None))
        if documents is None:
            return JSONResponse({"error": {"code": "NotFound", "message": "no such job"}}, 404)
        if time.monotonic() < due:
            return JSONResponse({"status": "running", "errors": [], "tasks": {"items": []}})
        answers = [
            {"id": each["id"], "class": [{"category": class_of(each["text"]), "confidenceScore": 0.9}], "warnings": []}
            for each in documents
        ]
        results = {"errors": [], "documents": answers}
        item = {"kind": "CustomSingleLabelClassificationLROResults", "status": "succeeded", "results": results}
        return JSONResponse({"status": "succeeded", "errors": [], "tasks": {"items": [item]}})

    async def _cancel(self, request: Request) -> Response:
        self._jobs.pop(request.path_params["job"], None)
        return Response(status_code=202)

    async def _troubled(self) -> Response | None:
        match self.trouble:
            case "throttling":
                return JSONResponse({"error": {"code": "429", "message": "slow down"}}, 429, {"retry-after": "1"})
            case "unavailable":
                return Response("<html>upstream is away</html>", 503, media_type="text/html")
            case "garbage":
                return Response(b"{" + b"\xff" * 40, 200, media_type="application/json")
            case "silence":
                while self.trouble == "silence":  # noqa: ASYNC110  the one who ends it is in another thread
                    await asyncio.sleep(0.05)
            case "slowness":
                await asyncio.sleep(2)
        return None


TROUBLES = ("throttling", "unavailable", "garbage", "silence", "slowness")


def class_of(text: str) -> str:
    """What the endpoint answers for a text: by its number, so that anybody can tell what is right."""
    return "access" if _number(text) % 2 else "delivery"


def _number(text: str) -> int:
    return int(text.split()[1].rstrip(":"))


def document(number: int, *, poison: bool = False) -> bytes:
    """A ticket whose text has its number, and the word that the endpoint cannot bear."""
    said: dict[str, Any] = {"id": f"T-{number}", "text": f"ticket {number}: {POISON if poison else 'please help'}"}
    return orjson.dumps(said)
