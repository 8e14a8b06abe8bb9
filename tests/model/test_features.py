from collections import Counter

import numpy as np
import pytest

from service.model.features import Vocabulary, character_grams, word_grams


def test_words_are_lower_case_runs_of_letters_and_digits_and_their_pairs() -> None:
    words = ["i", "d", "pay", "5", "now"]
    pairs = ["i d", "d pay", "pay 5", "5 now"]
    assert list(word_grams("I'd PAY 5€, now")) == [*words, *pairs, "i * pay", "d * 5", "pay * now"]


def test_each_character_of_a_script_without_spaces_is_a_word() -> None:
    assert list(word_grams("退款abc ไป")) == ["退", "款", "abc", "ไ", "ป", "退 款", "款 abc", "abc ไ", "ไ ป"]
    assert list(word_grams("환불 요청")) == ["환불", "요청", "환불 요청"]  # Korean has spaces


def test_runs_of_two_to_four_characters_stay_within_their_part() -> None:
    assert Counter(character_grams("Ab,  c")) == Counter(
        [" a", "ab", "b,", ", ", " ab", "ab,", "b, ", " ab,", "ab, ", " c", "c ", " c "]
    )


def test_a_text_without_words_has_no_grams() -> None:
    assert list(word_grams(" ?! ")) == []
    assert list(character_grams(" \n\t")) == []


def test_a_grams_weight_is_its_sublinear_count_times_its_rarity_at_length_one() -> None:
    vocabulary = Vocabulary({"a": 0, "b": 1, "c": 2}, np.array([1, 2, 3], np.float32), 2)
    indices, weights = vocabulary.weigh(["b", "a", "a"])
    expected = np.array([2, 1 + np.log(2)])  # b once, a twice
    assert indices.tolist() == [1, 0]
    assert weights == pytest.approx(expected / np.linalg.norm(expected))


@pytest.mark.parametrize(("unheard", "length"), [(0, 1), (2, 1 / np.sqrt(3))])
def test_unknown_grams_count_towards_the_length_as_far_as_the_model_heeds_them(unheard: float, length: float) -> None:
    _, weights = Vocabulary({"a": 0}, np.array([2], np.float32), unheard).weigh(["a", "unknown", "unknown"])
    assert np.linalg.norm(weights) == pytest.approx(length)


def test_a_text_of_unknown_grams_weighs_nothing() -> None:
    indices, weights = Vocabulary({"a": 0}, np.ones(1, np.float32), 1).weigh(["x", "y"])
    assert indices.size == weights.size == 0
