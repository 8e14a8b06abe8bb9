"""Amazon Comprehend, tags of what an account has: classifiers, endpoints and classification jobs.

A resource may have 50 tags, those that are there and those that are asked for together. A tag without a value has an
empty one; tags come in the order in which they were first given.

Behaviour chosen where the service's is not documented: taking away a tag that is not there changes nothing; more than
50 keys at once are a TooManyTagKeysException, also where they are of no tags.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from service.server.backend import Backend
from service.server.comprehend import Action, Call, Failure
from service.server.comprehend_account import Account
from service.server.comprehend_requests import MOST_TAGS, NAME, invalid, named, needed, tags, text
from service.server.store import Change

RESOURCE = "comprehend/tags"
_FORM = rf"{NAME}(?:/(?:dataset|version)/{NAME})?"


def first(kind: str, name: str, given: Mapping[str, Any]) -> list[Change]:
    """The tags that a new resource is given, to be kept with it; raises `Failure`."""
    return [Change(RESOURCE, f"{kind}/{name}", found)] if (found := tags(given)) else []


def last(kind: str, name: str) -> Change:
    """No tags any more, as a resource goes."""
    return Change(RESOURCE, f"{kind}/{name}", None)


class Tags:
    """The operations on tags; `known` says for each kind of resource whether there is one of that name."""

    def __init__(
        self, backend: Backend, account: Account, known: Mapping[str, Callable[[str], Awaitable[bool]]]
    ) -> None:
        self._store = backend.store
        self._account = account
        self._known = known

    def actions(self) -> dict[str, Action]:
        """What this room does, by operation."""
        return {
            "TagResource": Action("manage", self.tag, throttled="ThrottlingException"),
            "UntagResource": Action("manage", self.untag, throttled="ThrottlingException"),
            "ListTagsForResource": Action("manage", self.list, throttled="ThrottlingException"),
        }

    async def tag(self, call: Call) -> Mapping[str, Any]:
        """Give a resource tags, or those that it has other values."""
        wanted = needed(tags(call.given), "Tags")
        async with self._account.turn:
            resource = await self._resource(call.given)
            found = {**self._of(resource), **wanted}
            if len(found) > MOST_TAGS:
                raise Failure("TooManyTagsException", f"A resource may have {MOST_TAGS} tags.")
            await self._store.change(Change(RESOURCE, resource, found))
        return {}

    async def untag(self, call: Call) -> Mapping[str, Any]:
        """Take tags away from a resource."""
        keys = call.given.get("TagKeys")
        if not isinstance(keys, list):
            raise invalid("TagKeys is to be a list.")
        if len(keys) > MOST_TAGS:
            raise Failure("TooManyTagKeysException", f"A resource may have {MOST_TAGS} tags.")
        gone = {needed(text({"TagKeys": key}, "TagKeys", most=128), "TagKeys") for key in keys}
        async with self._account.turn:
            resource = await self._resource(call.given)
            left = {key: value for key, value in self._of(resource).items() if key not in gone}
            await self._store.change(Change(RESOURCE, resource, left or None))
        return {}

    async def list(self, call: Call) -> Mapping[str, Any]:
        """Show the tags of a resource."""
        resource = await self._resource(call.given)
        shown = [{"Key": key, "Value": value} for key, value in self._of(resource).items()]
        return {"ResourceArn": call.given["ResourceArn"], "Tags": shown}

    def _of(self, resource: str) -> Mapping[str, str]:
        return self._store.resource(RESOURCE, resource) or {}

    async def _resource(self, given: Mapping[str, Any]) -> str:
        kind, name = needed(named(given, "ResourceArn", "[a-zA-Z0-9-]{1,64}", _FORM), "ResourceArn")
        if kind not in self._known or not await self._known[kind](name):
            raise Failure("ResourceNotFoundException", "There is no such resource.")
        return f"{kind}/{name}"
