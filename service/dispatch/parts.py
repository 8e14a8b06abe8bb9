"""Texts that are longer than a classifier takes: cut into parts, whose outcomes make one of the whole. Pure.

Parts are about as long as each other and end where a paragraph, a sentence or at least a word does, if there is such a
place near by. What a reader sees as one character is not cut (its marks stay with it, as do joined emoji; a
simplification of Unicode's UAX #29 that joins rather more), unless that alone is longer than a part may be.
"""

import math
import re
from collections.abc import Iterator, Sequence
from unicodedata import category, combining

from service.documents import Classified, ClassScore, Outcome, Refused, bytes_of

_SLACK = 0.1
"""How far from the even place a part may end, as a share of a part; and how much shorter parts are made for that."""
_FARTHEST, _LONGEST_CHARACTER = 10_000, 1_000
"""How far that ever is, and how far an end is looked for in what has not even characters."""
_ENDINGS = (
    re.compile(r"\n[^\S\n]*\n\s*"),
    re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[」』”’）]*\s*"),
    re.compile(r"\s+"),
)
"""Of paragraphs, sentences and words: the better first."""
_JOINS = re.compile("[\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
"""What goes with the character before it, beside marks: joiners, skin tones, tags (of flags)."""
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff]")
_LEADING, _VOWEL, _TRAILING = (
    re.compile("[\u1100-\u115f\ua960-\ua97c]"),
    re.compile("[\u1160-\u11a7\ud7b0-\ud7c6]"),
    re.compile("[\u11a8-\u11ff\ud7cb-\ud7fb]"),
)
"""Hangul that is written by its letters."""


def split(text: str, most_characters: int, most_bytes: int, most_parts: int) -> list[str] | None:
    """The text in at most so many parts of at most so many characters, and bytes in UTF-8; None where that cannot be.

    Joined they are the text, but for parts of white space alone, which are left out.
    """
    size = bytes_of(text)
    least = max(1, math.ceil(len(text) / most_characters), math.ceil(size / most_bytes))
    roomy = math.ceil(max(len(text) / most_characters, size / most_bytes) / (1 - _SLACK))
    cutting_characters: list[str] | None = None
    for count in range(min(max(least, roomy), most_parts), most_parts + 1):
        ends = list(_ends(text, count, most_characters))
        parts = [text[begin:end] for begin, end in zip([0, *ends], [*ends, len(text)], strict=True)]
        if all(len(part) <= most_characters and bytes_of(part) <= most_bytes for part in parts):
            parts = [part for part in parts if part and not part.isspace()]
            if all(is_between(text, end) for end in ends):
                return parts
            cutting_characters = cutting_characters or parts
    return cutting_characters


def _ends(text: str, count: int, most: int) -> Iterator[int]:
    """Where all parts but the last end."""
    even, begin = len(text) / count, 0
    for number in range(1, count):
        first, last = max(begin, len(text) - (count - number) * most), min(len(text), begin + most)
        target = min(max(round(number * even), first), last)
        begin = _end(text, first, last, target, min(int(_SLACK * even), _FARTHEST))
        yield begin


def _end(text: str, first: int, last: int, target: int, slack: int) -> int:
    """The best place for a part to end: at something that ends near `target`, else from `first` to `last`."""
    near, far = max(first, target - slack), min(last, target + slack)
    for ending in _ENDINGS:
        ends = [found.end() for found in ending.finditer(text, max(0, near - 1), far)]
        if fitting := [end for end in ends if near <= end and is_between(text, end)]:
            return min(fitting, key=lambda end: abs(end - target))
    for distance in range(min(max(target - first, last - target), _LONGEST_CHARACTER) + 1):
        for end in (target - distance, target + distance):
            if first <= end <= last and is_between(text, end):
                return end
    return target


def is_between(text: str, place: int) -> bool:
    """Whether what a reader sees as a character ends at this place, and another begins."""
    if not 0 < place < len(text):
        return True
    before, after = text[place - 1], text[place]
    if after.isascii() and before.isascii():
        return not (before == "\r" and after == "\n")
    if category(after).startswith("M") or _JOINS.match(after) or before == "\u200d" or combining(before) == 9:
        return False  # 9 is a virama, which joins consonants
    if "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff":
        return False
    if _FLAG.match(before) and _FLAG.match(after):
        return _flags_before(text, place) % 2 == 0
    return not _is_one_syllable(before, after)


def _flags_before(text: str, place: int) -> int:
    """How many letters of flags stand before a place, two of which are one."""
    begin = place
    while begin and place - begin < _LONGEST_CHARACTER and _FLAG.match(text[begin - 1]):
        begin -= 1
    return place - begin


def _is_one_syllable(before: str, after: str) -> bool:
    is_syllable = "\uac00" <= before <= "\ud7a3"
    if _LEADING.match(before):
        return bool(_LEADING.match(after) or _VOWEL.match(after)) or "\uac00" <= after <= "\ud7a3"
    if _VOWEL.match(before) or (is_syllable and (ord(before) - 0xAC00) % 28 == 0):
        return bool(_VOWEL.match(after) or _TRAILING.match(after))
    return (is_syllable or bool(_TRAILING.match(before))) and bool(_TRAILING.match(after))


def merged(parts: Sequence[str], outcomes: Sequence[Outcome], task: str) -> Outcome:
    """The outcome of a text by those of its parts.

    With `single_label`, a class scores the mean over all parts, by their lengths; a part that does not have it counts
    as 0. With `multi_label`, what one part has the whole has: a class has its highest score and its gravest severity.
    A class that some part has without a score has none, and comes with those of its kind in order of how much text has
    it (`single_label`) or of appearance. All units and warnings count; a refusal of one part is the whole's.
    """
    scored = list[tuple[int, Classified]]()
    for number, (part, outcome) in enumerate(zip(parts, outcomes, strict=True), 1):
        if isinstance(outcome, Refused):
            return Refused(outcome.reason, f"part {number} of {len(parts)}: {outcome.message}")
        scored.append((len(part), outcome))
    found: dict[str, list[tuple[int, ClassScore]]] = {}
    for length, outcome in scored:
        for each in outcome.classes:
            found.setdefault(each.name, []).append((length, each))
    whole = sum(length for length, _ in scored)
    classes = _of_one_class(found, whole) if task == "single_label" else of_any_classes(found)
    said = dict.fromkeys(warning for _, outcome in scored for warning in outcome.warnings)
    units = sum(outcome.units for _, outcome in scored)
    return Classified(tuple(classes), units, (*said, f"split into {len(parts)} parts"))


Found = dict[str, list[tuple[int, ClassScore]]]
"""What several outcomes say of each class, and how much text each of them is about."""


def _of_one_class(found: Found, whole: int) -> list[ClassScore]:
    weights = {name: sum(length for length, _ in having) for name, having in found.items()}
    classes = [
        _class(name, having, sum(length * (each.score or 0.0) for length, each in having) / whole)
        for name, having in found.items()
    ]
    return sorted(
        classes, key=lambda each: weights[each.name] / whole if each.score is None else each.score, reverse=True
    )


def of_any_classes(found: Found) -> list[ClassScore]:
    """Each class with its highest score and gravest severity, best first; without a score where one has none."""
    classes = [_class(name, having, max(each.score or 0.0 for _, each in having)) for name, having in found.items()]
    return sorted(
        classes,
        key=lambda each: (math.inf if each[1:] == (None, None) else each.severity or 0, each.score or 0),
        reverse=True,
    )


def _class(name: str, having: Sequence[tuple[int, ClassScore]], score: float) -> ClassScore:
    severities = [each.severity for _, each in having if each.severity is not None]
    is_scored = all(each.score is not None for _, each in having)
    return ClassScore(name, score if is_scored else None, max(severities, default=None))
