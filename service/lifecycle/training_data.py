"""Labelled rows in the forms that services learn from, and what may be repeated of what they say about them.

What is made depends on what the rows say alone, not on their order or ids, so the same rows are always the same file.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

from service.model.examples import Example, in_fixed_order

_LONGEST_SAID = 300
_QUOTE, _STEP = 16, 4  # letters in a row that make a quote, and how far apart they are looked for
_TELLING = 8  # letters of a text so short that it is looked for as a whole


def digest(*what: bytes | str) -> str:
    """A name for what a model is made from: the same for the same, in any process."""
    parts = [part.encode() if isinstance(part, str) else part for part in what]
    return sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).hexdigest()


def named_after(rows: Sequence[Example], *more: str) -> str:
    """A name for a model of these rows, whatever their order and ids; `more` is what else it is made by."""
    return f"m-{digest(*more, *_said(rows))[:12]}"


def unquoted(said: object, texts: Iterable[str]) -> str:
    """What a service says of training data, in short; only that it quotes a text, where it does.

    Letters and digits alone are compared: a quote may be cut short, or have other marks around it.
    """
    words = " ".join(said.split())[:_LONGEST_SAID] if isinstance(said, str) else ""
    bare = _bare(words)
    runs = [bare[at : at + _QUOTE] for at in range(0, len(bare) - _QUOTE + 1, _STEP)]
    for text in map(_bare, texts):
        if any(run in text for run in runs) or (len(text) >= _TELLING and text in bare):
            return "what it says quotes a text, and is not repeated here"
    return words


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def whole(text: str) -> str:
    """The text with halves of surrogate pairs replaced by U+FFFD, as no UTF-8 can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _said(rows: Sequence[Example]) -> Iterator[str]:
    for row in in_fixed_order(rows):
        yield whole(row.text)
        yield "\n".join(row.labels)
