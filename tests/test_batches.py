import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batches import Batcher
from service.documents import Document
from tests.records import document


def lengths(batches: list[list[Document]]) -> list[list[int]]:
    return [[len(each.text) for each in batch] for batch in batches]


def of(*characters: int) -> list[Document]:
    return [document(i, "x" * length) for i, length in enumerate(characters)]


def test_a_full_batch_leaves_at_once_and_the_rest_waits() -> None:
    batcher = Batcher(documents=2, characters=100, wait=1)
    documents = of(1, 2, 3, 4, 5)
    assert batcher.add(documents, now=0) == [documents[:2], documents[2:4]]
    assert batcher.due_in(now=0) == 1
    assert batcher.add([], now=0.9) == []
    assert batcher.add([], now=1) == [documents[4:]]
    assert batcher.due_in(now=1) is None


def test_a_batch_is_closed_before_it_would_hold_too_many_characters() -> None:
    batcher = Batcher(documents=10, characters=10, wait=1)
    assert lengths(batcher.add(of(4, 6, 1, 9, 3), now=0)) == [[4, 6], [1, 9]]
    assert lengths(batcher.flush()) == [[3]]


def test_a_document_longer_than_a_batch_goes_alone() -> None:
    batcher = Batcher(documents=10, characters=10, wait=1)
    assert lengths(batcher.add(of(2, 50, 3), now=0)) == [[2], [50]]
    assert lengths(batcher.flush()) == [[3]]


def test_the_wait_is_counted_from_the_first_document_of_a_batch() -> None:
    batcher = Batcher(documents=3, characters=100, wait=1)
    assert batcher.due_in(now=5) is None
    batcher.add(of(1), now=5)
    batcher.add(of(1), now=5.5)
    assert batcher.due_in(now=5.75) == pytest.approx(0.25)
    assert batcher.due_in(now=9) == 0
    assert lengths(batcher.add(of(1, 1), now=5.9)) == [[1, 1, 1]]
    assert batcher.due_in(now=5.9) == 1
    assert lengths(batcher.add(of(1), now=6.8)) == []
    assert lengths(batcher.add(of(1), now=6.9)) == [[1, 1, 1]]


def test_without_a_wait_whatever_comes_together_leaves_together() -> None:
    assert lengths(Batcher(documents=10, characters=100, wait=0).add(of(1, 2, 3), now=0)) == [[1, 2, 3]]


def test_what_is_dropped_makes_room_for_others() -> None:
    batcher = Batcher(documents=3, characters=10, wait=1)
    documents = of(5, 4)
    batcher.add(documents, now=0)
    assert batcher.drop(lambda each: each is documents[0]) == documents[:1]
    assert lengths(batcher.add(of(6), now=0)) == []
    assert lengths(batcher.flush()) == [[4, 6]]
    batcher.add(documents, now=0)
    assert batcher.drop(lambda _: True) == documents
    assert batcher.due_in(now=0) is None
    assert batcher.flush() == []


ARRIVALS = st.lists(st.tuples(st.lists(st.integers(1, 40), max_size=12), st.floats(0, 2)), max_size=20)


@given(ARRIVALS, st.integers(1, 6), st.integers(1, 60), st.sampled_from([0.0, 0.5, 1.0]))
def test_every_document_leaves_once_in_order_in_time_and_in_a_batch_that_holds_it(
    arrivals: list[tuple[list[int], float]], most: int, most_characters: int, wait: float
) -> None:
    batcher, now = Batcher(most, most_characters, wait), 0.0
    arrived: list[Document] = []
    left: list[Document] = []

    def take(batches: list[list[Document]]) -> None:
        for batch in batches:
            assert 1 <= len(batch) <= most
            assert len(batch) == 1 or sum(len(each.text) for each in batch) <= most_characters
            left.extend(batch)
        due = batcher.due_in(now)
        assert (due is None) == (len(left) == len(arrived))
        assert due is None or 0 < due <= wait + 1e-9

    for characters, pause in arrivals:
        arrived += (documents := of(*characters))
        take(batcher.add(documents, now))
        until = now + pause
        while (due := batcher.due_in(now)) is not None and now + due <= until:
            now += due
            take(batcher.add([], now))
        now = until
    left += [each for batch in batcher.flush() for each in batch]
    assert [id(each) for each in left] == [id(each) for each in arrived]
