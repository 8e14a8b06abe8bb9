"""The routes of a stream: which of them a result meets, and where it is copied to. Pure."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from orjson import dumps as _json

from service.documents import ClassScore, Document
from service.errors import Misconfigured
from service.routing.conditions import Holds, Node, holds, tree
from service.routing.implications import implies, never_holds
from service.settings import Stream
from service.settings.values import nearest

OTHERWISE = "otherwise"
"""What results say in place of a rule's name where they meet none."""
_KEPT = 1024


class Decision(NamedTuple):
    """Which rules a result meets, in order, and the topics that get copies of it, each once.

    `told` is that as it stands in the result: `{"rule": …, "to": […]}` of the first rule, with `also` where there are
    more; null where none is met and `otherwise` is not given.
    """

    rules: tuple[str, ...]
    to: tuple[str, ...]
    told: bytes


class Rules:
    """The routes of a stream, made into functions once. Raises Misconfigured where one can never decide anything."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._first = stream.routing == "first_match"
        nodes = [tree(route, stream.thresholds) for route in stream.routes]
        if faults := list(_faults(stream, nodes)):
            raise Misconfigured("\n".join(f"streams.{stream.name}.{fault}" for fault in faults))
        self._holds = [holds(node, stream.thresholds, stream.fields_asked) for node in nodes]
        unsure = stream.unsure and tree(stream.unsure.when, stream.thresholds)
        self.is_unsure: Holds = holds(unsure, stream.thresholds, stream.fields_asked) if unsure else _never
        """Whether an answer is unsure: its document goes on to the second stage, if there is one."""
        self._decision = lru_cache(_KEPT)(self._decided)  # of the rules that are met: there are few such answers

    def decide(self, document: Document, classes: Sequence[ClassScore]) -> Decision:
        """What becomes of a result that has these classes, best first."""
        if self._first:
            for place, met in enumerate(self._holds):
                if met(document, classes):
                    return self._decision((place,))
            return self._decision(())
        return self._decision(tuple([place for place, met in enumerate(self._holds) if met(document, classes)]))

    def _decided(self, met: tuple[int, ...]) -> Decision:
        stream = self.stream
        names = tuple(stream.name_of_route(place) for place in met)
        if not met and not stream.otherwise:
            return Decision((), (), b"null")
        to = tuple(dict.fromkeys(topic for place in met for topic in stream.routes[place].to)) or stream.otherwise
        first, *others = names or (OTHERWISE,)
        told = {"rule": first, "to": to}
        return Decision((first, *others), to, _json(told | {"also": others} if others else told))


def _never(_: Document, __: Sequence[ClassScore]) -> bool:
    return False


def _faults(stream: Stream, nodes: Sequence[Node]) -> list[str]:
    faults = []
    if stream.unsure and never_holds(tree(stream.unsure.when, stream.thresholds)):
        faults.append("unsure.when: no answer can ever be that: its conditions contradict each other")
    for place, node in enumerate(nodes):
        name = stream.name_of_route(place)
        if never_holds(node):
            faults.append(f"routes: nothing can ever meet the rule {name}: its conditions contradict each other")
        elif stream.routing == "first_match":
            before = next((other for other in range(place) if implies(node, nodes[other])), None)
            if before is not None:
                faults.append(
                    f"routes: the rule {name} is never reached: {stream.name_of_route(before)} stands before it and"
                    " takes all that meets it; put the narrower rule first"
                )
    return faults + _without_threshold(stream)


def _without_threshold(stream: Stream) -> list[str]:
    """Classes that count from a threshold on, and have none though others do: a name that is mistyped, as a rule."""
    if not stream.thresholds:
        return []
    unknown = dict.fromkeys(
        name
        for condition in stream.conditions.values()
        for asked in condition.conditions()
        if asked.at_least is None and asked.severity_at_least is None
        for name in asked.class_ or ()
        if name not in stream.thresholds
    )
    return [
        f"thresholds: there is none for the class {name!r}, and its rule has no at_least either;"
        f" {nearest(name, [*stream.thresholds])}"
        for name in unknown
    ]


def check_classes(stream: Stream, known: Sequence[Collection[str] | None]) -> None:
    """See that rules, thresholds and baseline name classes that there are, of those that accounts are `known` to have.

    Raises Misconfigured; an account that does not tell its classes (None) may have them all.
    """
    told = [classes for classes in known if classes is not None]
    if len(told) == len(known) and (faults := _unknown(stream, {name for classes in told for name in classes})):
        raise Misconfigured("\n".join(faults))


def _unknown(stream: Stream, known: Collection[str]) -> list[str]:
    named = dict.fromkeys(stream.thresholds, "thresholds") | dict.fromkeys(stream.baseline, "baseline")
    for where, condition in stream.conditions.items():
        for asked in condition.conditions():
            named |= dict.fromkeys((*(asked.class_ or ()), *(asked.best or ())), where)
    return [
        f"streams.{stream.name}.{where}: no account of the stream has the class {name!r}, {nearest(name, [*known])}"
        for name, where in named.items()
        if name not in known
    ]
