"""Labelled rows on their way to a provider."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from service.model.examples import Example, in_fixed_order


def digest(*what: bytes | str) -> str:
    """A name for what a model is made from: the same for the same, in any process."""
    parts = [part.encode() if isinstance(part, str) else part for part in what]
    return sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).hexdigest()


def named_after(rows: Sequence[Example], *more: str) -> str:
    """A name for a model of these rows, whatever their order and ids; `more` is what else it is made by."""
    return f"m-{digest(*more, *_said(rows))[:12]}"


def whole(text: str) -> str:
    """The text with halves of surrogate pairs replaced by U+FFFD, as no UTF-8 can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _said(rows: Sequence[Example]) -> Iterable[str]:
    for row in in_fixed_order(rows):
        yield whole(row.text)
        yield "\n".join(row.labels)
