import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import settings
from service.documents import Classified, Reason, Refused
from service.limits.costs import DAY, HOUR, Budget, Grant, Spent, Tariff, tariff
from tests.clock import Clock

NOON = 1_800_000_000 // DAY * DAY + 12 * HOUR


RESOURCE = {"endpoint": "https://contoso.cognitiveservices.azure.com", "key": "a-key"}


def test_the_units_of_an_account_are_those_of_its_provider() -> None:
    safety = settings.ContentSafety.model_validate(
        {"provider": "content_safety", "price": {"per_unit": 0.00075}, **RESOURCE}
    )
    assert tariff(safety) == Tariff(0.00075, 0.0, 1000, 1)
    jobs = settings.ComprehendJobs.model_validate(
        {
            "provider": "comprehend_jobs",
            "classifier_arn": "arn:aws:comprehend:eu-west-1:111122223333:document-classifier/tickets",
            "task": "single_label",
            "data_access_role_arn": "arn:aws:iam::111122223333:role/data",
            "input_uri": "s3://bucket/in",
            "output_uri": "s3://bucket/out",
            "price": {"per_unit": 0.0005},
        }
    )
    assert tariff(jobs).at_most(1, 200) >= 3 * 0.0005


def test_money_that_nobody_counts_cannot_be_limited() -> None:
    with pytest.raises(ValueError, match=r"set price\.per_unit"):
        settings.ContentSafety.model_validate(
            {"provider": "content_safety", "limits": {"spend_per_day": 1}, **RESOURCE}
        )


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=25))
def test_what_a_call_may_cost_is_never_less_than_what_it_costs(lengths: list[int]) -> None:
    for each, least in ((1000, 1), (100, 3)):
        units = [max(least, -(-length // each)) for length in lengths]
        bill = Tariff(0.5, 0.0, each, least)
        assert bill.cost([Classified((), unit) for unit in units]) <= bill.at_most(len(lengths), sum(lengths))


def test_who_is_refused_is_not_billed_for() -> None:
    assert Tariff(2.0).cost([Classified((), 3), Refused(Reason.REFUSED_BY_CLASSIFIER, "no")]) == 6


@given(
    st.lists(st.tuples(st.integers(1, 25), st.floats(0, 2000), st.floats(0, 1)), max_size=200),
    st.floats(10, 100),
    st.floats(20, 500),
)
def test_no_hour_and_no_day_costs_more_than_it_may(
    calls: list[tuple[int, float, float]], per_hour: float, per_day: float
) -> None:
    clock = Clock(NOON)
    budget = Budget(Tariff(1.0, characters_per_unit=1), per_hour, per_day, clock)
    hours, days = dict[float, float](), dict[float, float]()
    for documents, later, share in calls:
        clock.at += later
        if not budget.wait(documents, 0):
            kept = budget.set_aside(documents, 0)
            cost = kept * share
            budget.book(kept, cost)
            for spent, seconds in ((hours, HOUR), (days, DAY)):
                window = clock.at // seconds
                spent[window] = spent.get(window, 0.0) + cost
    assert all(spent <= max(per_hour, 25) + 1e-6 for spent in hours.values())
    assert all(spent <= max(per_day, 25) + 1e-6 for spent in days.values())


def test_what_may_be_spent_opens_again_with_the_next_hour_and_the_next_day() -> None:
    clock = Clock(NOON + 600)
    budget = Budget(Tariff(1.0, characters_per_unit=1), 10, 15, clock)

    def spend(units: int) -> None:
        budget.book(budget.set_aside(units, 0), units)

    spend(10)
    assert budget.wait(1, 0) == HOUR - 600
    clock.at += HOUR - 600
    assert budget.wait(5, 0) == 0
    spend(5)
    assert budget.wait(1, 0) == 11 * HOUR
    assert budget.exceeded() == "limits.spend_per_day (15)"
    assert budget.spent() == Spent(15, 5, 15)
    clock.at += 11 * HOUR
    assert budget.wait(10, 0) == 0
    assert budget.spent() == Spent(15, 0, 0)


def test_what_was_set_aside_and_not_spent_may_be_spent() -> None:
    budget = Budget(Tariff(1.0, characters_per_unit=1), 10, None, Clock(NOON))
    kept = budget.set_aside(8, 0)
    assert budget.wait(5, 0) > 0
    budget.book(kept, 2)
    assert budget.wait(8, 0) == 0
    assert budget.wait(9, 0) > 0


def test_a_call_that_alone_costs_more_than_an_hour_may_goes_as_its_first() -> None:
    budget = Budget(Tariff(1.0, characters_per_unit=1), 10, None, Clock(NOON))
    assert budget.wait(25, 0) == 0
    budget.book(budget.set_aside(25, 0), 25)
    assert budget.wait(1, 0) > 0


def test_an_endpoint_is_billed_by_the_second_asked_or_not() -> None:
    clock = Clock(NOON)
    budget = Budget(Tariff(per_second=0.0005 * 4), None, 10, clock)
    clock.at += 1000
    assert budget.spent().total == pytest.approx(2)
    clock.at += 4001
    assert budget.wait(1, 100) > 0


def test_a_clock_that_is_set_back_opens_nothing_twice() -> None:
    clock = Clock(NOON)
    budget = Budget(Tariff(1.0, characters_per_unit=1), 10, None, clock)
    budget.book(budget.set_aside(10, 0), 10)
    clock.at -= HOUR + 1
    assert budget.wait(1, 0) > 0
    clock.at += HOUR + 2
    assert budget.wait(1, 0) > 0


def granted(**limits: float) -> tuple[Budget, Clock]:
    clock = Clock(NOON)
    budget = Budget(Tariff(1.0), limits.get("per_hour"), limits.get("per_day"), clock)
    budget.go_shared()
    return budget, clock


def test_what_is_shared_is_granted_before_it_is_spent() -> None:
    budget, _ = granted(per_hour=1000)
    assert 0 < budget.wait(5, 0) < 1
    assert budget.is_asking
    asked = budget.report()
    assert (asked.wanted, asked.least) == (5.0, 5.0)
    budget.grant(asked, Grant(5.0, 5.0, 5.0))
    assert budget.wait(5, 0) == 0
    budget.book(budget.set_aside(5, 0), 3.0)
    assert budget.wait(2, 0) == 0, "what was not billed may be spent again"
    assert budget.wait(3, 0) > 0


def test_a_refusal_is_believed_for_a_while_and_to_the_end_of_the_hour_at_most() -> None:
    budget, clock = granted(per_hour=1000)
    budget.wait(5, 0)
    budget.grant(budget.report(), Grant(0.0, 999.0, 999.0))
    assert not budget.is_asking
    assert budget.wait(5, 0) == pytest.approx(60)
    clock.at += 61
    assert budget.wait(5, 0) < 1, "others may have given back"


def test_what_was_granted_and_is_not_needed_is_given_back() -> None:
    budget, _ = granted(per_hour=1000)
    budget.wait(20, 0)
    budget.grant(budget.report(), Grant(20.0, 20.0, 20.0))
    budget.book(budget.set_aside(5, 0), 5.0)
    aside = budget.set_aside(3, 0)
    assert budget.rest().spent_in_hour == -12
    assert budget.wait(1, 0) > 0
    budget.book(aside, 3.0)


def told(budget: Budget) -> tuple[float, float]:
    """What is to be told of the hour and of the day; the others hear it, and grant nothing."""
    report = budget.report()
    budget.go_shared()
    budget.grant(report, Grant(0.0, report.spent_in_hour, report.spent_in_day))
    return report.spent_in_hour, report.spent_in_day


def test_what_was_spent_while_nobody_could_be_asked_is_told_later() -> None:
    budget, _ = granted(per_day=1000)
    budget.go_alone()
    budget.book(0.0, 7.0)
    assert told(budget) == (7.0, 7.0)
    assert told(budget) == (0.0, 0.0)


def test_what_is_told_later_is_of_the_hour_and_the_day_in_which_it_was_spent() -> None:
    budget, clock = granted(per_hour=1000, per_day=1000)
    budget.go_alone()
    budget.book(0.0, 7.0)
    clock.at += HOUR
    budget.book(0.0, 2.0)
    assert told(budget) == (2.0, 9.0)
    budget.go_alone()
    budget.book(0.0, 5.0)
    clock.at += DAY
    assert told(budget) == (0.0, 0.0)


def test_what_comes_of_a_report_is_of_its_hour() -> None:
    budget, clock = granted(per_hour=1000, per_day=1000)
    budget.go_alone()
    budget.book(0.0, 7.0)
    report = budget.report()
    clock.at += HOUR
    budget.go_shared()
    budget.grant(report, Grant(10.0, 600.0, 800.0))
    assert budget.spent() == Spent(7.0, 0.0, 800.0)
    assert budget.wait(1, 0) > 0, "nothing is granted for this hour"
    assert budget.report()[2:4] == (0.0, 0.0)


def test_what_was_granted_for_an_hour_that_is_over_goes_back_to_its_day() -> None:
    budget, clock = granted(per_hour=1000, per_day=1000)
    budget.wait(20, 0)
    budget.grant(budget.report(), Grant(20.0, 20.0, 20.0))
    budget.book(budget.set_aside(5, 0), 5.0)
    clock.at += HOUR
    assert told(budget) == (0.0, -15.0)


def test_what_was_granted_and_not_used_is_spent_alone_and_not_told_twice() -> None:
    budget, _ = granted(per_hour=1000)
    budget.wait(20, 0)
    budget.grant(budget.report(), Grant(20.0, 20.0, 20.0))
    budget.book(budget.set_aside(5, 0), 5.0)
    budget.go_alone()
    budget.book(0.0, 18.0)
    assert told(budget)[0] == 3.0, "all know of 20, and 23 were spent"
