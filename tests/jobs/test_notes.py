"""What a note says, how it is written, and which one is believed."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.notes import Job, Note, newest_claims, notes_of, read, superfluous, written
from service.offsets import Mark, Partition, Range, encode
from tests.records import INPUT, document

OTHER = Partition("incoming", 1)
JOB = Job("azure", "tickets/production", "https://contoso/jobs/1", 1_700_000_000.25, 3)
CANARY = "the canary sings"


def note(*offsets: int, at: float = 1.0, name: str = "job") -> Note:
    job = Job("azure", "model", name, at, len(offsets))
    return notes_of(job, [document(offset) for offset in offsets])[0]


def test_a_job_has_a_note_in_each_partition_that_its_documents_are_of() -> None:
    documents = [document(5), document(2, partition=OTHER), document(7)]
    here, there = notes_of(JOB, documents)
    assert (here.partition, {place.offset: number for place, (number, _) in here.claims.items()}) == (
        INPUT,
        {5: 0, 7: 2},
    )
    assert (there.partition, {place.offset: number for place, (number, _) in there.claims.items()}) == (OTHER, {2: 1})
    assert here.key == there.key.replace(" 1 ", " 0 ")


def test_a_note_of_very_many_documents_is_several() -> None:
    several = notes_of(JOB._replace(documents=25_000), [document(offset) for offset in range(25_000)])
    assert [len(each.claims) for each in several] == [10_000, 10_000, 5_000]
    assert len({each.key for each in several}) == 3
    assert max(len(written(each)) for each in several) < 250_000


def test_a_note_holds_no_text() -> None:
    (only,) = notes_of(JOB, [document(0, CANARY)])
    assert b"canary" not in written(only)
    assert only.holds(document(0, CANARY))
    assert not only.holds(document(0, "another text in its place"))
    assert not only.holds(document(1, CANARY))


@given(
    st.builds(Job, st.text(), st.text(), st.text(), st.floats(0, 1e12), st.integers(1, 1000)),
    st.lists(st.integers(0, 2**62), min_size=1, max_size=50, unique=True),
)
def test_what_is_written_is_read(job: Job, offsets: list[int]) -> None:
    (whole,) = notes_of(job._replace(documents=len(offsets)), [document(offset) for offset in offsets])
    try:
        value = written(whole)
    except TypeError:  # halves of surrogate pairs, which no name of an account or job has
        return
    assert read(INPUT, value) == whole


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 2},
        {"claims": []},
        {"claims": [[1, 2]]},
        {"claims": [[0, "x", 0]]},
        {"claims": [[0, 3, 0]]},
        {"account": 5},
        {"documents": None},
        {"submitted_at": "yesterday"},
        {"more": 1},
    ],
)
def test_a_note_that_is_damaged_or_of_another_form_is_none(changed: dict[str, object]) -> None:
    value = written(notes_of(JOB, [document(0)])[0])
    assert read(INPUT, value) is not None
    assert read(INPUT, orjson.dumps(orjson.loads(value) | changed)) is None


@given(st.binary())
def test_whatever_is_found_in_place_of_a_note_harms_nobody(value: bytes) -> None:
    assert read(INPUT, value) is None


def test_a_note_is_superfluous_once_all_of_it_is_committed() -> None:
    kept = [note(1, 2, 3), note(4, 9), note(8, 9)]
    assert superfluous(kept, Mark(0)) == []
    assert superfluous(kept, Mark(4)) == kept[:1]
    assert superfluous(kept, Mark(5, encode(5, [Range(9, 9)]))) == kept[:2]
    assert superfluous(kept, Mark(5, encode(5, [Range(7, 9)]))) == kept
    assert superfluous(kept, Mark(10)) == kept


def test_the_newest_job_speaks_for_a_document() -> None:
    old, new, other = note(1, 2, at=1, name="old"), note(2, 3, at=2, name="new"), note(7, at=0, name="other")
    claims, silent = newest_claims([new, old, other])
    assert {place.offset: each.job.name for place, each in claims.items()} == {1: "old", 2: "new", 3: "new", 7: "other"}
    assert silent == []
    newest = note(1, 2, at=3, name="newest")
    assert newest_claims([newest, old])[1] == [old]
