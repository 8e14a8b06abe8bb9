"""What classifiers and analyzers of Content Understanding have in common: clients make, see, change and forget them."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

from service.server.content_understanding_wire import (
    BASE,
    MOST_BODY,
    accepted,
    json_body,
    listed,
    named,
    not_found,
    patched,
)
from service.server.gateway import Call, answer
from service.server.jobs import Jobs, new_id
from service.server.store import Change, Store


class NamedResources:
    """Resources of one kind over the server's state; `kind` is their name there, `word` what people call one.

    `shown` is what clients see of one, by its name, what is kept of it, and a status where it is not ready.
    """

    def __init__(self, store: Store, jobs: Jobs, kind: str, word: str, shown: Callable[..., dict[str, Any]]) -> None:
        self._store = store
        self._jobs = jobs
        self._kind = kind
        self._word = word
        self._shown = shown

    def find(self, name: str) -> Mapping[str, Any] | None:
        """What is kept of one, if it is there."""
        return self._store.resource(self._kind, name)

    def asked(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        """The one that a call names. Raises a `Refusal` where there is none."""
        name = named(call)
        kept = self.find(name)
        if kept is None:
            raise not_found(f"There is no {self._word} {name!r}.")
        return name, kept

    async def make(self, call: Call, made: Mapping[str, Any]) -> Response:
        """Make one, or another in its place, as the body of a PUT said."""
        name, now, operation = named(call), self._jobs.clock(), new_id()
        before = self.find(name)
        kept = {**made, "created": before["created"] if before else now, "modified": now, "operation": operation}
        await self._store.change(Change(self._kind, name, kept))
        where = call.url(f"{BASE}/{self._word}s/{name}/operations/{operation}", f"api-version={call.version}")
        return answer(self._shown(name, kept, "creating"), 200 if before else 201, accepted(call, where))

    async def operation(self, call: Call) -> Response:
        """How the making of one went."""
        name, kept = self.asked(call)
        if call.parameter("operation") != kept["operation"]:
            raise not_found("There is no such operation.")
        return answer({"id": kept["operation"], "status": "Succeeded", "result": self._shown(name, kept)})

    async def get(self, call: Call) -> Response:
        """Show one."""
        return answer(self._shown(*self.asked(call)))

    async def list(self, call: Call) -> Response:
        """Show all, page by page."""
        return answer(listed(call, self._store.resources(self._kind), self._shown))

    async def patch(self, call: Call) -> Response:
        """Change description and tags."""
        name, kept = self.asked(call)
        changed = patched(kept, json_body(await call.body(MOST_BODY)), self._jobs.clock())
        await self._store.change(Change(self._kind, name, changed))
        return answer(self._shown(name, changed))

    async def delete(self, call: Call) -> Response:
        """Forget one."""
        name, _ = self.asked(call)
        await self._store.change(Change(self._kind, name, None))
        return Response(status_code=204)
