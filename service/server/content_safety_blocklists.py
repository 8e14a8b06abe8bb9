"""Blocklists of Content Safety: terms that clients keep, and where a text holds them.

A term matches where the text holds it whole: letter case, width and runs of white space do not matter, and where the
term begins or ends with a letter or digit the text must not go on with another (`ass` is not in `class`), except in
scripts written without spaces.
"""

import asyncio
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.routing import Route

from service.server.content_safety_requests import (
    BASE,
    body,
    invalid,
    not_found,
    objects,
    page,
    refused,
    resource_name,
    same_name,
    strings,
    text,
)
from service.server.gateway import Call, Gateway, Operation, Resource, answer
from service.server.store import Change, Store

PATH = f"{BASE}/text/blocklists"
BLOCKLIST = "content_safety_blocklist"
LONGEST_NAME = 64
LONGEST_DESCRIPTION = 1024
LONGEST_TERM = 128
MOST_ITEMS_A_CALL = 100
MOST_TERMS = 10_000  # over all lists

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class Term(NamedTuple):
    """An item of a blocklist."""

    blocklist: str
    id: str
    text: str


class Blocklists:
    """The lists and their items; changes come one after another."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changing = asyncio.Lock()

    def routes(self, gateway: Gateway, versions: Iterable[str]) -> list[Route]:
        """The paths of blocklists, behind a gateway."""
        served = frozenset(versions)

        def route(path: str, **methods: Operation) -> Route:
            return Route(f"{PATH}{path}", Resource(gateway, "content_safety", served, methods, refused))

        return [
            route("", GET=Operation("manage", self.list_all)),
            route("/{name}:addOrUpdateBlocklistItems", POST=Operation("manage", self.add)),
            route("/{name}:removeBlocklistItems", POST=Operation("manage", self.remove)),
            route("/{name}/blocklistItems", GET=Operation("manage", self.list_items)),
            route("/{name}/blocklistItems/{item}", GET=Operation("manage", self.get_item)),
            route(
                "/{name}",
                PATCH=Operation("manage", self.patch),
                GET=Operation("manage", self.get),
                DELETE=Operation("manage", self.delete),
            ),
        ]

    def terms(self, names: Sequence[str]) -> list[Term]:
        """All items of some lists; refuses a list that is not there."""
        return [
            Term(name, item_id, item["text"])
            for name in names
            if self._find(name)
            for item_id, item in self._items(name)
        ]

    async def patch(self, call: Call) -> Response:
        """Make a list, or change its description."""
        name = resource_name(call, LONGEST_NAME)
        given = await body(call)
        same_name(given, "blocklistName", name)
        async with self._changing:
            known = self._store.resource(BLOCKLIST, name)
            described = _described(given, known or {"blocklistName": name})
            await self._store.change(Change(BLOCKLIST, name, described))
        return answer(described, 200 if known else 201)

    async def get(self, call: Call) -> Response:
        """One list."""
        return answer(self._find(resource_name(call, LONGEST_NAME)))

    async def list_all(self, call: Call) -> Response:
        """All lists."""
        return page(call, PATH, [*self._store.resources(BLOCKLIST).values()])

    async def delete(self, call: Call) -> Response:
        """Remove a list with its items."""
        name = resource_name(call, LONGEST_NAME)
        async with self._changing:
            self._find(name)
            items = [Change(_kind(name), item_id, None) for item_id, _ in self._items(name)]
            await self._store.change(Change(BLOCKLIST, name, None), *items)
        return Response(status_code=204)

    async def add(self, call: Call) -> Response:
        """Add items, or change the description of those whose text is in the list."""
        name = resource_name(call, LONGEST_NAME)
        given = _given_items(await body(call))
        async with self._changing:
            self._find(name)
            known = {item["text"]: item_id for item_id, item in self._items(name)}
            added = {item["text"] for item in given} - set(known)
            if self._count() + len(added) > MOST_TERMS:
                raise invalid(f"The blocklists would hold more than {MOST_TERMS:,} items together.")
            for item in given:
                item["blocklistItemId"] = known.setdefault(item["text"], str(uuid.uuid4()))
            await self._store.change(*(Change(_kind(name), item["blocklistItemId"], item) for item in given))
        return answer({"blocklistItems": given})

    async def remove(self, call: Call) -> Response:
        """Remove items, all that are named or none."""
        name = resource_name(call, LONGEST_NAME)
        ids = strings(await body(call), "blocklistItemIds")
        if not 1 <= len(ids) <= MOST_ITEMS_A_CALL:
            raise invalid(f"blocklistItemIds is to hold 1 to {MOST_ITEMS_A_CALL} ids.")
        async with self._changing:
            self._find(name)
            items = self._store.resources(_kind(name))
            if not items.keys() >= set(ids):
                raise not_found("An id is that of no item of this blocklist; nothing was removed.")
            await self._store.change(*(Change(_kind(name), item_id, None) for item_id in set(ids)))
        return Response(status_code=204)

    async def list_items(self, call: Call) -> Response:
        """The items of a list, in the order in which they were added."""
        name = resource_name(call, LONGEST_NAME)
        self._find(name)
        return page(call, f"{PATH}/{name}/blocklistItems", [item for _, item in self._items(name)])

    async def get_item(self, call: Call) -> Response:
        """One item of a list."""
        name = resource_name(call, LONGEST_NAME)
        self._find(name)
        item = self._store.resource(_kind(name), call.parameter("item"))
        if item is None:
            raise not_found("The blocklist has no such item.")
        return answer(item)

    def _find(self, name: str) -> Mapping[str, Any]:
        found = self._store.resource(BLOCKLIST, name)
        if found is None:
            raise not_found(f"There is no blocklist {name!r}.")
        return found

    def _items(self, name: str) -> list[tuple[str, Mapping[str, Any]]]:
        return [*self._store.resources(_kind(name)).items()]

    def _count(self) -> int:
        return sum(len(self._store.resources(_kind(name))) for name in self._store.resources(BLOCKLIST))


def matches(content: str, terms: Sequence[Term]) -> list[dict[str, str]]:
    """The terms that a text holds, in the order given; not for the event loop."""
    folded = _fold(content)
    return [
        {"blocklistName": term.blocklist, "blocklistItemId": term.id, "blocklistItemText": term.text}
        for term in terms
        if _holds(folded, _fold_term(term.text))
    ]


def _holds(content: str, term: str) -> bool:
    at = content.find(term)
    while at >= 0:
        if not (_goes_on(content[at - 1 : at], term[0]) or _goes_on(content[at + len(term) :][:1], term[-1])):
            return True
        at = content.find(term, at + 1)
    return False


def _goes_on(neighbour: str, edge: str) -> bool:
    """Whether the word at a term's edge goes on beyond it."""
    return neighbour.isalnum() and edge.isalnum() and not _UNSPACED.match(edge)


def _fold(content: str) -> str:
    """A text with what does not matter made alike."""
    return " ".join(unicodedata.normalize("NFKC", content).casefold().split())


_fold_term = lru_cache(maxsize=2 * MOST_TERMS)(_fold)  # terms come again with every text


def _kind(name: str) -> str:
    return f"content_safety_blocklist_items/{name}"


def _described(given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """A list after a merge patch: what is null goes, what is not given stays."""
    described = dict(known)
    if "description" in given:
        description = given["description"]
        described.pop("description", None)
        if description is not None:
            described["description"] = _description(given)
    return described


def _description(fields: Mapping[str, Any]) -> str:
    return text(fields, "description", LONGEST_DESCRIPTION) if fields["description"] != "" else ""


def _given_items(given: Mapping[str, Any]) -> list[dict[str, str]]:
    """The items to add, each text once: of several with the same text the last."""
    items = objects(given, "blocklistItems")
    if not 1 <= len(items) <= MOST_ITEMS_A_CALL:
        raise invalid(f"blocklistItems is to hold 1 to {MOST_ITEMS_A_CALL} items.")
    read = {}
    for item in items:
        if item.get("isRegex"):
            raise invalid("Items that are regular expressions are not supported here.")
        term = text(item, "text", LONGEST_TERM)
        if not _fold(term):
            raise invalid("An item's text is blank.")
        read[term] = {"text": term}
        if item.get("description") is not None:
            read[term]["description"] = _description(item)
    return [*read.values()]
