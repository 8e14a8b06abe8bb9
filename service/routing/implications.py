"""What can be told of conditions without a document: which can never hold, and which hold wherever another does. Pure.

What is found is so; not all that is so is found. Numbers are one-dimensional, so it is enough to look at two at a time.
"""

from collections.abc import Iterator, Sequence

from service.routing.conditions import All, Has, Node, Not, OneOf, Some, Within, Word


def never_holds(node: Node) -> bool:
    """Whether nothing at all can meet a condition."""
    match node:
        case Within(_, low, high):
            return low >= high
        case All(parts):
            flat = list(_flat(parts))
            return any(map(never_holds, flat)) or any(
                contradicts(one, other) for place, one in enumerate(flat) for other in flat[:place]
            )
        case Some(parts):
            return all(map(never_holds, parts))
    return False


def _flat(parts: Sequence[Node]) -> Iterator[Node]:
    for part in parts:
        if isinstance(part, All):
            yield from _flat(part.parts)
        else:
            yield part


def contradicts(one: Node, other: Node) -> bool:
    """Whether two conditions never hold together."""
    match one, other:
        case Within(number, low, high), Within(same, least, most) if number is same:
            return max(low, least) >= min(high, most)
        case OneOf(Word.BEST, _, names), OneOf(Word.BEST, _, others) if names is not None and others is not None:
            return not names & others
        case (Not(part), node) | (node, Not(part)) if implies(node, part):
            return True
    return False


def implies(one: Node, other: Node) -> bool:
    """Whether the other condition holds wherever the one does."""
    if one == other or never_holds(one):
        return True
    match one, other:
        case Some(parts), _:
            return all(implies(part, other) for part in parts)
        case _, All(parts):
            return all(implies(one, part) for part in parts)
        case Not(part), Not(same):
            return implies(same, part)
    wider = other.parts if isinstance(other, Some) else ()
    narrower = one.parts if isinstance(one, All) else ()
    return (
        any(implies(part, other) for part in narrower)
        or any(implies(one, part) for part in wider)
        or _is_part_of(one, other)
    )


def _is_part_of(one: Node, other: Node) -> bool:
    match one, other:
        case Has(name, at_least, severity), Has(same, least, gravity):
            return name == same and at_least >= least and severity >= gravity
        case Within(number, low, high), Within(same_number, least, most):
            return number is same_number and low >= least and high <= most
        case OneOf(word, name, values), OneOf(same_word, same, others) if (word, name) == (same_word, same):
            return others is None or (values is not None and values <= others)
    return False
