"""What all tables of failures have in common; what each row does is seen in tests/providers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.transport.failures import NOT_JSON, At, Rule, Then, first_that_fits
from tests.reference import FAILURES

BLAMES = {Then.SPLIT, Then.REFUSE}
OF_AZURE = [title for title in FAILURES if "azure" in title or "content" in title]
CODES = sorted({code for rules in FAILURES.values() for rule in rules for code in rule.codes} | {"Unheard"})


def test_the_first_row_that_fits_decides() -> None:
    rules = [Rule(Then.WAIT, statuses=(429,)), Rule(Then.STOP, codes=("A",)), Rule(Then.HOLD, at=(At.POLL,))]
    assert first_that_fits(rules, At.POLL, 429, ["A"]).then is Then.WAIT
    assert first_that_fits(rules, At.POLL, 500, ["B", "A"]).then is Then.STOP
    assert first_that_fits(rules, At.POLL, 500, ["B"]).then is Then.HOLD


def test_what_no_row_foresees_is_held() -> None:
    assert first_that_fits([Rule(Then.STOP, codes=("A",))], At.REQUEST, 400, ["B"]).then is Then.HOLD


@pytest.mark.parametrize(
    ("then", "kind"),
    [
        (Then.WAIT, Throttled),
        (Then.HOLD, Unavailable),
        (Then.SUBMIT_AGAIN, JobLost),
        (Then.SPLIT, Rejected),
        (Then.STOP, Misconfigured),
    ],
)
def test_each_consequence_is_an_error_that_says_what_to_do(then: Then, kind: type[Exception]) -> None:
    error = Rule(then, "check key").error("host answered 401", 3.0)
    assert type(error) is kind
    assert str(error) == "host answered 401: check key"
    assert getattr(error, "retry_after", 3.0) in {3.0, None}


@given(
    st.sampled_from(OF_AZURE),
    st.sampled_from([At.REQUEST, At.POLL, At.LOOK]),
    st.integers(300, 599).filter(lambda status: status not in {400, 413, 422}),
    st.lists(st.sampled_from(CODES), max_size=3),
)
def test_no_document_is_blamed_for_a_status_that_is_not_about_what_was_sent(
    title: str, at: At, status: int, codes: list[str]
) -> None:
    assert first_that_fits(FAILURES[title], at, status, codes).then not in BLAMES


@given(st.sampled_from(OF_AZURE), st.sampled_from([400, 422]))
def test_no_document_is_blamed_for_an_answer_that_is_somebody_elses(title: str, status: int) -> None:
    assert first_that_fits(FAILURES[title], At.REQUEST, status, [NOT_JSON]).then is Then.HOLD


@given(st.sampled_from(sorted(FAILURES)), st.integers(0, 599), st.sampled_from(CODES))
def test_a_failed_look_or_poll_blames_no_document(title: str, status: int, code: str) -> None:
    then = first_that_fits(FAILURES[title], At.LOOK, status, [code]).then
    assert then not in BLAMES or title.startswith("`comprehend"), "there the look at start says so as it is"
