import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dispatch.parts import is_between, merged, split
from service.documents import Classified, ClassScore, Outcome, Reason, Refused, bytes_of

NO_BYTES = 1 << 60
SENTENCE = "The parcel has not come, and nobody answers. "


def parts_of(text: str, most: int, most_bytes: int = NO_BYTES, most_parts: int = 20) -> list[str]:
    parts = split(text, most, most_bytes, most_parts)
    assert parts is not None
    return parts


def test_parts_are_even_and_end_with_a_sentence() -> None:
    parts = parts_of(SENTENCE * 100, 2_000)
    assert "".join(parts) == SENTENCE * 100
    assert len(parts) == 3
    assert max(map(len, parts)) - min(map(len, parts)) <= len(SENTENCE)
    assert all(part.endswith("answers. ") for part in parts)


def test_a_paragraph_is_a_better_end_than_a_sentence_and_a_word_better_than_none() -> None:
    paragraphs = ("word. " * 40 + "\n\n") * 12
    assert all(part.endswith("\n\n") for part in parts_of(paragraphs, 1_000))
    assert all(part.endswith(" ") or part == "word" for part in parts_of("word " * 100, 100))
    assert [len(part) for part in parts_of("x" * 100, 60)] == [50, 50]
    assert parts_of("もう一度。" * 10, 30) == ["もう一度。" * 5] * 2


def test_what_exactly_fits_into_the_most_parts_is_split() -> None:
    assert parts_of("x" * 30, 10, most_parts=3) == ["x" * 10] * 3
    assert split("x" * 31, 10, NO_BYTES, 3) is None


def test_bytes_are_counted_where_they_are_what_there_is_too_much_of() -> None:
    uneven = "x" * 1000 + "日" * 1000
    parts = parts_of(uneven, 10_000, 1_000)
    assert "".join(parts) == uneven
    assert max(map(bytes_of, parts)) <= 1_000
    assert split(uneven, 10_000, 1_000, 4) is None


def test_parts_of_white_space_are_left_out() -> None:
    assert parts_of("x" * 10 + " " * 1000 + "y" * 10, 100)[0].startswith("x")
    assert len(parts_of("x" * 10 + " " * 1000 + "y" * 10, 100)) == 2


@pytest.mark.parametrize(
    "character",
    [
        "e\u0301",
        "\u0915\u094d\u0937\u093f",  # Devanagari: two consonants joined, and a vowel
        "👩\u200d👩\u200d👧\u200d👦",
        "👍🏽",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "🇩🇪",
        "\u1112\u1161\u11ab",  # Hangul by its letters
        "한\u11ab",
        "\u2764\ufe0f",
        "\ud83d\ude00",  # a surrogate pair that somebody took for two characters
    ],
)
def test_what_a_reader_sees_as_one_character_is_not_cut(character: str) -> None:
    text = character * 41
    for most in range(len(character), 4 * len(character)):
        parts = parts_of(text, most + len(character), most_parts=200)
        assert "".join(parts) == text
        assert all(len(part) % len(character) == 0 for part in parts)
    assert [place for place in range(len(text) + 1) if is_between(text, place)] == list(
        range(0, len(text) + 1, len(character))
    )


def test_a_line_break_of_two_characters_is_not_cut() -> None:
    assert [place for place in range(5) if is_between("a\r\nb", place)] == [0, 1, 3, 4]


@pytest.mark.parametrize("character", ["e" + "\u0301" * 3_000, "🇩" * 3_000, "x" + " " * 3_000])
def test_what_nobody_writes_is_cut_in_no_time_all_the_same(character: str) -> None:
    text = character * 300
    assert "".join(parts_of(text, 100_000)) == text


def test_a_character_longer_than_a_part_is_cut_after_all() -> None:
    assert len(parts_of("e" + "\u0301" * 99, 40)) >= 3


TEXTS = st.lists(
    st.one_of(st.text(max_size=30), st.sampled_from([SENTENCE, "\n\n", "e\u0301", "👩\u200d👧", "日本。", " " * 50])),
    max_size=40,
).map("".join)


@given(TEXTS, st.integers(1, 60), st.integers(4, 120), st.integers(1, 30))
def test_parts_are_within_bounds_and_lose_nothing(text: str, most: int, most_bytes: int, most_parts: int) -> None:
    parts = split(text, most, most_bytes, most_parts)
    if parts is None:
        assert len(text) > most or bytes_of(text) > most_bytes
        return
    assert len(parts) <= most_parts
    assert all(len(part) <= most and bytes_of(part) <= most_bytes for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


@given(TEXTS, st.integers(20, 60))
def test_where_only_characters_count_no_room_in_the_most_parts_goes_unused(text: str, most: int) -> None:
    least = max(1, math.ceil(len(text) / most))
    assert split(text, most, NO_BYTES, least) is not None


def classified(*classes: ClassScore, units: int = 1, warnings: tuple[str, ...] = ()) -> Classified:
    return Classified(classes, units, warnings)


def classes_of(task: str, *parts: tuple[int, Outcome]) -> tuple[ClassScore, ...]:
    outcome = merged(["x" * length for length, _ in parts], [each for _, each in parts], task)
    assert isinstance(outcome, Classified)
    return outcome.classes


def test_of_one_class_each_scores_the_mean_by_length() -> None:
    first = classified(ClassScore("billing", 0.9), ClassScore("refund", 0.1))
    second = classified(ClassScore("refund", 0.8))
    found = classes_of("single_label", (100, first), (300, second))
    assert [each.name for each in found] == ["refund", "billing"]
    assert [each.score for each in found] == pytest.approx([0.625, 0.225])


def test_of_classes_without_scores_the_one_that_most_of_the_text_has_comes_first() -> None:
    one, other = classified(ClassScore("letter", None)), classified(ClassScore("invoice", None))
    assert [name for name, _, _ in classes_of("single_label", (100, one), (70, other), (70, other))] == [
        "invoice",
        "letter",
    ]


def test_of_any_classes_the_whole_has_what_one_part_has() -> None:
    first = classified(ClassScore("spam", 0.3), ClassScore("rude", 0.9))
    second = classified(ClassScore("spam", 0.7))
    assert classes_of("multi_label", (900, first), (1, second)) == (ClassScore("rude", 0.9), ClassScore("spam", 0.7))
    assert classes_of("multi_label", (9, classified()), (9, classified())) == ()


def test_a_harm_in_one_part_is_a_harm_of_the_whole_as_grave_as_it_gets() -> None:
    first = classified(ClassScore("Hate", None, 2), ClassScore("Violence", None, 4))
    second = classified(ClassScore("blocklist/slurs", None), ClassScore("Hate", None, 6))
    assert classes_of("multi_label", (9_000, first), (10, second), (9_000, classified())) == (
        ClassScore("blocklist/slurs", None),
        ClassScore("Hate", None, 6),
        ClassScore("Violence", None, 4),
    )


def test_units_and_warnings_are_those_of_all_parts_and_say_how_many_there_were() -> None:
    one, other = classified(units=3, warnings=("Truncated",)), classified(units=4, warnings=("Truncated", "Odd"))
    assert merged(["a", "b"], [one, other], "multi_label") == Classified(
        (), 7, ("Truncated", "Odd", "split into 2 parts")
    )


def test_a_part_that_is_refused_has_the_whole_refused_with_its_message() -> None:
    refusal = Refused(Reason.REFUSED_BY_CLASSIFIER, "InvalidDocument")
    assert merged(["a", "b"], [classified(), refusal], "multi_label") == Refused(
        Reason.REFUSED_BY_CLASSIFIER, "part 2 of 2: InvalidDocument"
    )
