import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from itertools import combinations
from typing import Any

import pytest

TICKET_CLASSES = {
    "account_access",
    "billing",
    "cancellation",
    "delivery",
    "product_question",
    "refund",
    "returns",
    "technical",
}
HARMS = {"harassment", "hate", "self_harm", "sexual", "spam", "threat"}
NAMES = ("tickets.jsonl", "moderation.jsonl")

Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    content = (files("service.samples") / name).read_bytes().decode("utf-8", errors="strict")
    return [json.loads(line) for line in content.removesuffix("\n").split("\n")]


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def near_duplicates(documents: list[Row], alike: float) -> Iterator[tuple[str, str]]:
    """Pairs of ids whose texts share at least `alike` of their three-word runs (Jaccard)."""
    known = [(row["id"], shingles(row["text"])) for row in documents]
    for (left, a), (right, b) in combinations(known, 2):
        if a == b or len(a & b) >= alike * len(a | b):
            yield left, right


def test_a_ticket_has_exactly_the_keys_its_readers_want() -> None:
    assert {tuple(sorted(row)) for row in rows("tickets.jsonl")} == {("body", "id", "label", "subject", "text")}


def test_a_post_has_exactly_the_keys_its_readers_want() -> None:
    assert {tuple(sorted(row)) for row in rows("moderation.jsonl")} == {("id", "labels", "text")}


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique(name: str) -> None:
    ids = [row["id"] for row in rows(name)]
    assert len(set(ids)) == len(ids)


def test_the_text_of_a_ticket_is_its_subject_and_body() -> None:
    assert [row["id"] for row in rows("tickets.jsonl") if row["text"] != f"{row['subject']}\n{row['body']}"] == []


def test_every_ticket_class_has_sixty_examples() -> None:
    counts = Counter(row["label"] for row in rows("tickets.jsonl"))
    assert set(counts) == TICKET_CLASSES
    assert min(counts.values()) >= 60


def test_every_harm_has_fifty_examples() -> None:
    counts = Counter(label for row in rows("moderation.jsonl") for label in row["labels"])
    assert set(counts) == HARMS
    assert min(counts.values()) >= 50


def test_posts_have_no_one_or_two_labels_in_realistic_shares() -> None:
    posts = rows("moderation.jsonl")
    assert all(len(set(post["labels"])) == len(post["labels"]) for post in posts)
    share = {count: n / len(posts) for count, n in Counter(len(post["labels"]) for post in posts).items()}
    assert set(share) == {0, 1, 2}
    assert 0.35 <= share[0] <= 0.45
    assert 0.10 <= share[2] <= 0.15


def test_classes_are_interleaved() -> None:
    labels = [row["label"] for row in rows("tickets.jsonl")]
    for start in range(0, len(labels), 40):
        assert set(labels[start : start + 40]) == TICKET_CLASSES


@pytest.mark.parametrize("name", NAMES)
def test_no_two_texts_are_near_duplicates(name: str) -> None:
    assert list(near_duplicates(rows(name), alike=0.5)) == []


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_written_as_utf8_without_control_characters(name: str) -> None:
    content = (files("service.samples") / name).read_bytes().decode("utf-8", errors="strict")
    # Escaped (\u00e9), mis-decoded ("Ã©", "â€™") or in two code points: a model would learn letters that nobody types.
    assert re.search(r"\\u[0-9a-f]{4}|Ã|â€|\ufffd", content) is None
    assert unicodedata.is_normalized("NFC", content)
    assert not content.isascii()
    strange = {
        c for row in rows(name) for c in row["text"] if unicodedata.category(c) in {"Cc", "Cf", "Co"} and c != "\n"
    }
    assert strange == set()


@pytest.mark.parametrize("name", NAMES)
def test_lengths_are_those_of_real_messages(name: str) -> None:
    lengths = [len(row["text"].split()) for row in rows(name)]
    assert min(lengths) >= 5
    assert max(lengths) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_every_address_is_a_reserved_one(name: str) -> None:
    text = "\n".join(row["text"] for row in rows(name))
    domains = re.findall(r"[\w-]+(?:\.[\w-]+)*\.(?:com|net|org|info|io|co|de|uk|in|eu)\b", text)
    assert [domain for domain in domains if not re.fullmatch(r"(?:[\w-]+\.)*example\.com", domain)] == []
    assert [number for number in re.findall(r"\b555-\d+\b", text) if not re.fullmatch(r"555-01\d\d", number)] == []
