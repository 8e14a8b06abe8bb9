"""What is personal in a text, replaced before the text goes to any classifier. Pure.

Each finding becomes a placeholder that names its kind and is the same wherever the same thing stands in the text:
`[EMAIL_1]`, `[CARD_1]`, `[EMAIL_2]`. Findings are what is written as such and, where there is a checksum (cards, IBANs)
or a form (IP addresses), adds up. It is no more than that: names, addresses and what is spelt out are not found.

Every built-in expression takes time in proportion to the text; a user's own are run by RE2, which always does.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from service.errors import Misconfigured
from service.settings import Redact

_IBAN_LENGTHS = {
    length: frozenset(countries.split())
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
}
"""How long an account number is in each country (the registry of ISO 13616, which SWIFT keeps)."""
_LENGTH_OF = {country: length for length, countries in _IBAN_LENGTHS.items() for country in countries}
_CARD_DIGITS = range(13, 20)  # ISO/IEC 7812
_PHONE_DIGITS = range(8, 16)  # at most 15, by ITU-T E.164

_EMAIL = re.compile(r"(?<![\w.%+'-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,29}")
_DIGITS = re.compile(r"(?<!\w)(?<![0-9][.,-])[0-9]{3,}(?:[ -][0-9]{3,})*(?!\w)")
_GROUP = re.compile(r"[0-9]+")
_DATE = r"(?![0-9]{1,4}[-./][0-9]{1,2}[-./][0-9]{1,4}(?![0-9]))"
_PHONE = re.compile(
    rf"(?<![\w+/-])(?<![0-9][.,]){_DATE}(?:"
    r"(?:\+|00)[1-9](?:[ ./-]?\(?[0-9]\)?){6,18}"  # with the country's code
    r"|\(0[0-9]{1,5}\)(?:[ /-]?[0-9]){4,11}|0[1-9](?:[ /-]?[0-9]){6,11}"  # with a national prefix
    r"|(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"  # as in North America
    r")(?![\w])"
)
_IPV4 = re.compile(r"(?<![\w.:])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\.?\w)")
_IPV6 = re.compile(r"(?<![\w.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.[0-9]{1,3}){3})?(?![\w:])")


class Found(NamedTuple):
    """Something personal in a text, from `begin` to `end`; `value` is the same however it is written."""

    begin: int
    end: int
    value: str


Finder = Callable[[str], Iterable[Found]]


def _emails(text: str) -> Iterator[Found]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield Found(*match.span(), match[0].lower())


def _ibans(text: str) -> Iterator[Found]:
    begin = 0
    while match := _IBAN.search(text, begin):
        end = _end_of_iban(match)
        begin = match.start() + 2 if end is None else end
        if end is not None:
            yield Found(match.start(), end, _bare(text[match.start() : end]).upper())


def _end_of_iban(match: re.Match[str]) -> int | None:
    """Where the account number ends that may be at the beginning of what looks like one, if it adds up."""
    length = _LENGTH_OF.get(match[0][:2].upper())
    places = [place for place, character in enumerate(match[0]) if character not in " -"]
    if length is None or len(places) < length:
        return None
    end = places[length - 1] + 1
    number = _bare(match[0][:end])
    digits = "".join(str(int(character, 36)) for character in number[4:] + number[:4])  # ISO 7064, MOD 97-10
    ends_there = end == len(match[0]) or not match[0][end].isalnum()
    return match.start() + end if ends_there and int(digits) % 97 == 1 else None


def _cards(text: str) -> Iterator[Found]:
    for match in _DIGITS.finditer(text):
        groups = [group.span() for group in _GROUP.finditer(text, *match.span())]
        place = 0
        while place < len(groups):
            last = _last_of_card(text, groups, place)
            if last is not None:
                begin, end = groups[place][0], groups[last][1]
                yield Found(begin, end, _bare(text[begin:end]))
            place = place + 1 if last is None else last + 1


def _last_of_card(text: str, groups: Sequence[tuple[int, int]], first: int) -> int | None:
    """The group of digits that a card number ends with which begins with the first, if one does."""
    digits, found = "", None
    for last in range(first, len(groups)):
        digits += text[slice(*groups[last])]
        if len(digits) >= _CARD_DIGITS.stop:
            break
        if len(digits) in _CARD_DIGITS and _is_luhn(digits):
            found = last
    return found


def _is_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it (ISO/IEC 7812-1), and they are not all 0."""
    doubled = (2 * int(digit) for digit in digits[-2::-2])
    total = sum(map(int, digits[::-2])) + sum(number - 9 if number > 9 else number for number in doubled)
    return total % 10 == 0 and digits.strip("0") != ""


def _phones(text: str) -> Iterator[Found]:
    for match in _PHONE.finditer(text):
        digits = "".join(_GROUP.findall(match[0]))
        abroad = digits.removeprefix("00") if match[0].startswith("00") else digits
        if len(abroad) in _PHONE_DIGITS:
            yield Found(*match.span(), f"+{abroad}" if match[0].startswith(("+", "00")) else digits)


def _ips(text: str) -> Iterator[Found]:
    forms = [_IPV4, _IPV6] if "::" in text or text.count(":") > 6 else [_IPV4]
    for match in (match for form in forms for match in form.finditer(text)):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        if any(character.isalnum() for character in match[0]):
            yield Found(match.start(), match.end(), address.compressed)


def _bare(written: str) -> str:
    return written.replace(" ", "").replace("-", "")


_FINDERS: Mapping[str, Finder] = {"email": _emails, "iban": _ibans, "card": _cards, "ip": _ips, "phone": _phones}
"""By kind; where two findings overlap, the one whose kind is earlier stands, as it is the surer."""
_OF_DIGITS = {"iban", "card", "phone"}


class _Pattern(Protocol):
    def finditer(self, text: str) -> Iterable[re.Match[str]]: ...


class Redactor:
    """Replaces what a stream has asked to be replaced, and tells `count` how many there were of each kind.

    Raises Misconfigured for a pattern that RE2 does not take, and where it is needed and not installed.
    """

    def __init__(self, branch: Redact, count: Callable[[Mapping[str, int]], None]) -> None:
        self._count = count
        self._finders = [(name, _of_pattern(name, text)) for name, text in branch.patterns.items()]
        self._finders += [(kind, find) for kind, find in _FINDERS.items() if kind in branch.kinds]

    def redacted(self, text: str) -> str:
        """The text with placeholders in it."""
        if not (found := sorted(self._found(text))):
            return text
        placeholders, kinds = dict[tuple[str, str], str](), Counter[str]()
        parts, end, counts = list[str](), 0, Counter[str]()
        for begin, upto, kind, value in found:
            counts[kind] += 1
            if (placeholder := placeholders.get((kind, value))) is None:
                kinds[kind] += 1
                placeholder = placeholders[kind, value] = f"[{kind.upper()}_{kinds[kind]}]"
            parts += (text[end:begin], placeholder)
            end = upto
        self._count(counts)
        return "".join((*parts, text[end:]))

    def _found(self, text: str) -> Iterator[tuple[int, int, str, str]]:
        """All that is found and does not overlap with what an earlier kind has found."""
        taken, has_digits = bytearray(len(text)), _GROUP.search(text) is not None
        for kind, find in self._finders:
            if kind in _OF_DIGITS and not has_digits:
                continue
            for begin, end, value in find(text):
                if begin < end and taken.find(1, begin, end) < 0:
                    taken[begin:end] = b"\1" * (end - begin)
                    yield begin, end, kind, value


def _of_pattern(name: str, pattern: str) -> Finder:
    compiled = _compiled(name, pattern)
    return lambda text: (Found(match.start(), match.end(), match.group()) for match in compiled.finditer(text))


def _compiled(name: str, pattern: str) -> _Pattern:
    try:
        import re2  # noqa: PLC0415  an extra, for those who want it
    except ImportError:
        raise Misconfigured(
            f"redact.patterns.{name}: patterns take RE2, which is not installed: pip install 'labelstream[redaction]'"
        ) from None
    options = re2.Options()
    options.log_errors = False
    try:
        compiled: _Pattern = re2.compile(pattern, options)
    except re2.error as error:
        raise Misconfigured(f"redact.patterns.{name}: RE2 does not take it: {_said(error)}") from None
    return compiled


def _said(error: Exception) -> str:
    (said,) = error.args[:1] or ("",)
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def redaction(branch: Redact | None, count: Callable[[Mapping[str, int]], None]) -> Callable[[str], str]:
    """What a stream does to texts before they leave: nothing, unless it is asked for. Raises Misconfigured."""
    return str if branch is None else Redactor(branch, count).redacted
