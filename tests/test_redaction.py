"""What is taken out of texts, and what is left."""

import re
import string
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import redaction
from service.documents import Document
from service.errors import Misconfigured
from service.formats.reading import Reader
from service.settings import Fields, Redact
from tests.records import written


def redacted(text: str, counts: Counter[str] | None = None, **branch: Any) -> str:
    counts = Counter() if counts is None else counts
    return redaction.Redactor(Redact.model_validate(branch), counts.update).redacted(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to ann.o'neil+x@mail.example.co.uk, please", "write to [EMAIL_1], please"),
        ("<müller@bücher.example>", "<[EMAIL_1]>"),
        ("a@b is no address, nor is @home or a@b.c", None),
        ("card 4111 1111 1111 1111.", "card [CARD_1]."),
        ("card 4111-1111-1111-1111", "card [CARD_1]"),
        ("card:378282246310005", "card:[CARD_1]"),
        ("order 12 4111 1111 1111 1111 of 2024", "order 12 [CARD_1] of 2024"),
        ("card 4111 1111 1111 1112", None),  # its check digit is wrong
        ("card 0000 0000 0000 0000", None),
        ("0.4111111111111111", None),
        ("3782 822463 10005 and 6304 0000 0000 0000 000", "[CARD_1] and [CARD_2]"),
        ("IBAN DE89 3704 0044 0532 0130 00 BITTE", "IBAN [IBAN_1] BITTE"),
        ("gb82west12345698765432", "[IBAN_1]"),
        ("NO9386011117947", "[IBAN_1]"),
        ("DE88370400440532013000", None),  # its check digits are wrong
        ("DE893704004405320130001", None),  # longer than one of that country
        ("XX89370400440532013000", None),
        ("from 192.168.0.17 to 10.0.0.1:8080", "from [IP_1] to [IP_2]:8080"),
        ("from 2001:db8::1 and ::ffff:1.2.3.4.", "from [IP_1] and [IP_2]."),
        ("1:2:3:4:5:6:7:8", "[IP_1]"),
        ("999.1.1.1, 1.2.3, 1.2.3.4.5, 10:30:00, std::vector, 00:1A:2B:3C:4D:5E", None),
        ("call +49 (30) 1234-5678 now", "call [PHONE_1] now"),
        ("Tel.:0049 30 12345678", "Tel.:[PHONE_1]"),
        ("(030) 1234567 or 0171/2345678", "[PHONE_1] or [PHONE_2]"),
        ("(212) 555-0123, 212-555-0123", "[PHONE_1], [PHONE_1]"),
        ("on 2026-11-21, 01.02.2026 10:30, 01-02-2026 1030, ticket 4711, 12 345 678 euros", None),
        ("A0123456789, 2024-0123456789", None),
    ],
)
def test_what_is_personal_is_replaced_and_nothing_else(text: str, left: str | None) -> None:
    assert redacted(text) == (text if left is None else left)


def test_the_same_thing_has_the_same_placeholder_however_it_is_written() -> None:
    text = "a@b.example, C@B.example, A@b.example; 4111111111111111 = 4111 1111 1111 1111; DE89370400440532013000"
    assert redacted(text) == "[EMAIL_1], [EMAIL_2], [EMAIL_1]; [CARD_1] = [CARD_1]; [IBAN_1]"


def test_what_is_replaced_is_counted_by_kind() -> None:
    counts = Counter[str]()
    redacted("a@b.example and a@b.example, 10.0.0.1", counts)
    redacted("nothing to see", counts)
    assert counts == {"email": 2, "ip": 1}


def test_only_what_is_asked_for_is_replaced() -> None:
    assert redacted("a@b.example, 10.0.0.1", kinds=["ip"]) == "a@b.example, [IP_1]"


def test_patterns_of_ones_own_come_first_and_are_found_in_any_text() -> None:
    patterns = {"customer": r"\bK-\d{6}\b", "host": r"[a-z]+@b"}
    assert redacted("ü K-123456, K-1234567, K-654321 K-123456 x@b.example", patterns=patterns) == (
        "ü [CUSTOMER_1], K-1234567, [CUSTOMER_2] [CUSTOMER_1] [HOST_1].example"
    )


def test_a_pattern_that_finds_nothing_at_all_replaces_nothing() -> None:
    assert redacted("abc", patterns={"nothing": "x*"}) == "abc"


@pytest.mark.parametrize("pattern", [r"(a", r"(?=a)", r"(a)\1"])
def test_a_pattern_that_re2_does_not_take_is_refused(pattern: str) -> None:
    with pytest.raises(Misconfigured, match=r"redact\.patterns\.odd: RE2 does not take it: \w"):
        redacted("", patterns={"odd": pattern})


def test_patterns_without_the_extra_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(Misconfigured, match=r"pip install 'labelstream\[redaction\]'"):
        redacted("", patterns={"odd": "a"})
    assert redacted("a@b.example") == "[EMAIL_1]"


EVIL = ["a" * 50_000, "1 " * 25_000, "+" * 50_000, "a@" * 25_000, "a." * 25_000 + "@", "::" * 25_000, "AB12" * 12_500]
EVIL += ["0" * 50_000, "a@b." * 12_500, "1.2.3.4" * 7_000, "(0" * 25_000, "DE89 " * 10_000, "a@b.example " * 4_000]


@pytest.mark.parametrize("text", EVIL, ids=[text[:5] for text in EVIL])
@pytest.mark.timeout(10)  # a second or so, not the hours that backtracking takes
def test_no_text_takes_for_ever(text: str) -> None:
    for end in ("", "!", "x", "1"):
        redacted(text + end, patterns={"evil": "(a+)+$", "nested": "((1 )*)*x"})


PERSONAL = ["a@b.example", "4111 1111 1111 1111", "+49 30 1234567", "10.0.0.1", "::1", "DE89370400440532013000"]


@given(st.lists(st.sampled_from(PERSONAL) | st.text(string.printable.replace("[", ""), max_size=9), max_size=12))
def test_what_is_not_replaced_is_as_it_was(pieces: list[str]) -> None:
    text, counts = "".join(pieces), Counter[str]()
    left = re.split(r"\[[A-Z]+_[0-9]+\]", redacted(text, counts))
    assert len(left) == counts.total() + 1
    assert text.startswith(left[0])
    assert text.endswith(left[-1])
    place = 0
    for part in left:
        place = text.index(part, place) + len(part)


def test_a_reader_takes_it_out_before_anything_else_is_done_with_a_text() -> None:
    counts = dict[str, int]()

    def count(found: Mapping[str, int]) -> None:
        counts.update(found)

    redact = redaction.redaction(Redact(), count)
    reader = Reader(Fields(text=("/subject", "/text"), max_characters=40), lambda _: None, (), redact)
    record = written(0, "me@example.org " * 2, subject="from somebody.with.a.long.name@mail.example.org")
    document = reader.read(record, 0.0)
    assert isinstance(document, Document)
    assert document.text == "from [EMAIL_1]\n[EMAIL_2] [EMAIL_2] "
    assert document.record is record, "what becomes a dead letter is as it came"
    assert counts == {"email": 3}


def test_without_it_texts_are_what_they_are() -> None:
    text = "a@b.example"
    assert redaction.redaction(None, lambda _: None)(text) is text
