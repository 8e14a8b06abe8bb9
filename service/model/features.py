"""What the embedded model sees of a text: words, pairs of words, and the runs of characters inside them.

The weight of a gram is its sublinear count times its inverse document frequency, and the weights of each kind of gram
are brought to length one (Salton and Buckley 1988, "Term-weighting approaches in automatic text retrieval"). Grams that
the model does not know may count towards that length: a text of which little is known then stays near nothing, and what
is out of scope is told from the rest. `tests/model/choices.py` has made the choices.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, pairwise
from math import sqrt
from operator import add
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_WITHOUT_SPACES = re.compile(rf"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def words_of(text: str) -> list[str]:
    """The lower-case runs of letters and digits; in a script written without spaces each character is a word."""
    return _WORD.findall(text.lower())


def word_grams(text: str) -> Iterator[str]:
    """The words of a text, its pairs of neighbouring words and those with one word between them, with repeats.

    In a script written without spaces, characters with one between them say nothing and are left out.
    """
    words = words_of(text)
    pairs = chain(words, map(" ".join, pairwise(words)))
    if _WITHOUT_SPACES.search(text):
        return pairs
    return chain(pairs, map(" * ".join, zip(words, words[2:], strict=False)))


def character_grams(text: str) -> Iterator[str]:
    """Every run of two to four characters inside the text's space-separated parts, with repeats.

    Parts are lower-case and padded with a space on either side, which tells beginnings and ends from middles.
    """
    return chain.from_iterable(map(_runs, text.lower().split()))


def _runs(part: str) -> Iterator[str]:
    padded = f" {part} "
    pairs = list(map(add, padded, padded[1:]))
    triples = list(map(add, pairs, padded[2:]))
    return chain(pairs, triples, map(add, triples, padded[3:]))


class Vocabulary(NamedTuple):
    """The grams of one kind that a model knows: the index of each, and by index its inverse document frequency.

    `unheard` is that frequency of a gram that it does not know, 0 where such grams are passed over.
    """

    index_of: Mapping[str, int]
    rarity: NDArray[np.float32]
    unheard: float

    def weigh(self, grams: Iterable[str]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The indices of the known ones among a text's grams, each once, and their weights.

        The weights are of length one together, or less where there are grams that are not known.
        """
        counts = Counter(map(self.index_of.get, grams))
        unheard = counts.pop(None, 0)
        indices = np.fromiter(counts, np.intp, len(counts))
        weights = np.fromiter(counts.values(), np.float32, len(counts))
        weights = (np.log(weights) + 1) * self.rarity.take(indices)
        weights /= sqrt(weights @ weights + unheard * self.unheard**2 or 1)
        return indices, weights
