"""Quotas of an account of Comprehend, as an operator writes them."""

import pytest

from service.errors import Misconfigured
from service.server.comprehend_account import Quotas


def test_quotas_are_the_documented_ones_unless_others_are_given() -> None:
    assert Quotas.parse([]) == Quotas(20, 50, 200, 10, 10)
    assert Quotas.parse(["units-per-endpoint=100", "jobs=3"]) == Quotas(20, 100, 200, 10, 3)


@pytest.mark.parametrize("given", ["", "units", "units=", "units=many", "units=-1", "nonsense=1", "units=²"])
def test_a_quota_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(Misconfigured, match="units-per-endpoint, units, trainings, jobs"):
        Quotas.parse([given])
