import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from service.errors import ModelError
from service.model import category, embeddings
from service.model.category import LearntCategory, learn_category
from service.model.classifier import Classifier
from service.model.examples import ExamplesError
from tests.model.bench import category_f1
from tests.model.public import DATA

POSITIVES = [
    f"{who} {what} {when}"
    for who, what, when in product(
        ("we", "my crew and I", "nobody else could"),
        ("sailed around the cape", "hoisted the mainsail", "reefed the jib in a squall", "moored in the harbour"),
        ("at dawn", "last week", "against the tide", "with two sailors", "in the regatta"),
    )
]
NEGATIVES = [
    f"{who} {what} {when}"
    for who, what, when in product(
        ("we", "my crew and I", "nobody else could"),
        ("drove around the town", "painted the fence", "baked the cake", "parked in the garage"),
        ("at dawn", "last week", "against the clock", "with two friends", "in the contest"),
    )
]
SAILING, DRIVING = "they reefed the mainsail against the tide", "they parked and baked against the clock"
TICKET = "I was charged twice for my order, please send the money back."


def shuffle(things: list[Any]) -> None:
    random.Random(1).shuffle(things)  # noqa: S311  always the same order, for no secret


@pytest.fixture(scope="module")
def alone() -> LearntCategory:
    return learn_category("sailing", POSITIVES)


@pytest.fixture(scope="module")
def told() -> LearntCategory:
    return learn_category("sailing", POSITIVES, NEGATIVES)


def test_a_category_is_learnt_from_positives_alone(alone: LearntCategory) -> None:
    sailing, ticket = alone.classifier.classify([SAILING, TICKET])
    assert [found.name for found in sailing] == ["sailing"]
    assert ticket == ()
    assert alone.ranking > 0.95
    (warning,) = alone.warnings
    assert "without negatives" in warning


def test_negatives_say_where_a_category_begins(alone: LearntCategory, told: LearntCategory) -> None:
    (sailing,), (driving,) = told.classifier.scores([SAILING, DRIVING])
    assert sailing >= 0.5 > driving
    assert driving < alone.classifier.scores([DRIVING])[0, 0]
    assert told.warnings == ()


def test_few_negatives_and_positives_are_warned_of() -> None:
    warnings = " ".join(learn_category("sailing", POSITIVES[:30], NEGATIVES[:25]).warnings)
    assert "25 negatives" in warnings
    assert "30 positives" in warnings


def test_seven_in_ten_positives_not_seen_are_found_where_nothing_else_says_where_a_category_begins() -> None:
    shuffled = POSITIVES.copy()
    shuffle(shuffled)
    scores = learn_category("sailing", shuffled[:40]).classifier.scores(shuffled[40:])
    assert (scores >= 0.5).mean() >= 0.6


def test_the_same_texts_in_any_order_make_the_same_bytes(told: LearntCategory, tmp_path: Path) -> None:
    again = learn_category("sailing", [*reversed(POSITIVES), POSITIVES[0]], [*reversed(NEGATIVES)])
    assert again.save(tmp_path / "one").read_bytes() == told.save(tmp_path / "other").read_bytes()
    loaded = Classifier.load(tmp_path / "one")
    assert (loaded.task, loaded.labels, loaded.threshold) == ("multi_label", ("sailing",), 0.5)


def test_a_file_that_was_tampered_with_is_refused(alone: LearntCategory, tmp_path: Path) -> None:
    path = alone.save(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError):
        Classifier.load(tmp_path)


def test_a_category_with_nothing_in_common_cannot_be_learnt() -> None:
    texts = category._background().texts
    shuffle(texts)
    with pytest.raises(ExamplesError, match="cannot be told from other texts"):
        learn_category("anything", texts[:60])


def test_a_category_that_negatives_are_just_as_much_of_cannot_be_learnt() -> None:
    texts = POSITIVES.copy()
    shuffle(texts)
    with pytest.raises(ExamplesError, match="cannot be told from the negatives"):
        learn_category("sailing", texts[::2], texts[1::2])


@pytest.mark.parametrize(
    ("positives", "negatives", "reason"),
    [
        (POSITIVES[:9] + POSITIVES[:9], [], "9 different positives are too few"),
        (POSITIVES, [*NEGATIVES, POSITIVES[3]], "as positive and as negative: 1"),
        ([], NEGATIVES, "0 different positives"),
    ],
)
def test_what_makes_no_category_is_said(positives: list[str], negatives: list[str], reason: str) -> None:
    with pytest.raises(ExamplesError, match=reason) as caught:
        learn_category("sailing", positives, negatives)
    assert POSITIVES[3] not in str(caught.value)


@pytest.mark.parametrize(
    "positives", [["\ud800", "", " ", *"0123456789"], ["今天天气很好", *map(chr, range(0x4E00, 0x4E20))]]
)
def test_any_texts_make_a_category_or_are_refused(positives: list[str]) -> None:
    try:
        learnt = learn_category("any", positives)
    except ExamplesError:
        return
    assert 0 <= learnt.classifier.scores(["anything"])[0, 0] <= 1


# What a category is worth on public data ----------------------------------------------------------

TASKS = ("spam", "travel", "credit cards", "lost card")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the public data sets are not there ({DATA})")
@pytest.mark.parametrize(("negatives", "floor"), [(0, 0.6), (50, 0.65), (500, 0.75)])
def test_public_categories_of_50_positives(negatives: int, floor: float) -> None:
    found = [category_f1(name, negatives) for name in TASKS]
    assert sum(found) / len(found) >= floor, found
    assert min(found) >= 0.3, found


# By meaning ---------------------------------------------------------------------------------------


def test_a_category_is_learnt_by_meaning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(category, "_EVERY", 20)  # of the background, which takes some seconds
    learnt = learn_category("sailing", POSITIVES, NEGATIVES, encoder=embeddings.encoder())
    loaded = Classifier.load(learnt.save(tmp_path))
    assert loaded.encoder == embeddings.DIGEST
    (yacht,), (bread,) = loaded.scores(["the skipper tied the yacht to the quay", "he cut the bread in slices"])
    assert yacht > bread
    (sailing,), (driving,) = loaded.scores([SAILING, DRIVING])
    assert sailing >= 0.5 > driving
