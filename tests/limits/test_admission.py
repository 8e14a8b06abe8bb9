"""What comes of the limits where no scenario (tests/scenarios) shows it: simulated, on virtual time."""

import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from service import settings
from service.limits.gate import Limits
from tests.clock import virtual_time
from tests.services import Asking, Bucket, Seen, Service, Window


def limits(**values: object) -> Limits:
    return Limits(settings.Limits.model_validate({"in_flight": "adaptive", **values}))


def alike(characters: int = 1000) -> Iterator[tuple[int, int]]:
    return itertools.repeat((characters, 1))


def mixed() -> Iterator[tuple[int, int]]:
    """Calls of 1 to 25 documents whose lengths differ widely."""
    chance = random.Random(3)  # noqa: S311  keeps no secret
    while True:
        documents = chance.choice([1, 1, 5, 25, 25, 25])
        yield int(documents * chance.lognormvariate(6, 0.6)), documents


def seen(
    service: Service,
    gate: Limits,
    *phases: float | Callable[[Service], object],
    sizes: Callable[[], Iterator[tuple[int, int]]] = alike,
) -> list[Seen]:
    """What is seen in each phase, in seconds; between them the service may change."""

    @virtual_time
    async def ask() -> list[Seen]:
        found = []
        async with Asking(gate, service, sizes()) as asking:
            for phase in phases:
                if callable(phase):
                    phase(service)
                else:
                    found.append(await asking.watch(phase))
        return found

    return ask()


@pytest.mark.parametrize(("kind", "per_second", "used"), [(Bucket, 40, 0.95), (Window, 40, 0.85)])
def test_a_quota_that_nobody_told_is_learnt(kind: type[Bucket | Window], per_second: float, used: float) -> None:
    _, usual = seen(Service(requests=kind(per_second)), limits(), 15, 120)
    assert usual.per_second >= used * per_second
    assert usual.share_refused <= 0.003


def test_a_quota_that_is_less_than_was_said_is_found_out() -> None:
    _, usual = seen(Service(requests=Bucket(40)), limits(requests_per_second=200), 15, 120)
    assert usual.per_second >= 0.93 * 40
    assert usual.share_refused <= 0.003


@pytest.mark.parametrize("unevenness", [0.05, 0.6])
@pytest.mark.parametrize("at_once", [4, 100])
def test_there_are_as_many_calls_as_a_service_works_at_and_not_many_more(at_once: int, unevenness: float) -> None:
    _, usual = seen(Service(at_once=at_once, unevenness=unevenness), limits(), 6, 15)
    ideal = at_once / (0.1 * 2.718281828 ** (unevenness**2 / 2))
    assert usual.per_second >= 0.95 * ideal
    assert usual.took <= 0.25


def test_a_service_that_never_slows_down_gets_as_many_as_it_may() -> None:
    _, usual = seen(Service(), limits(most_in_flight=100), 5, 5)
    assert usual.limit == 100


def test_a_service_that_is_slower_for_reasons_of_its_own_keeps_its_calls() -> None:
    def change(service: Service) -> None:
        service.seconds = lambda _: 0.3

    gate = limits(most_in_flight=100)
    _, slower = seen(Service(), gate, 10, change, 30)
    assert slower.limit == 100


@pytest.mark.parametrize("unevenness", [0.2, 0.6])
def test_batches_of_different_sizes_are_not_taken_for_load(unevenness: float) -> None:
    def service(at_once: int = 10**6) -> Service:
        return Service(seconds=lambda characters: 0.05 + characters / 50_000, at_once=at_once, unevenness=unevenness)

    _, free = seen(service(), limits(), 12, 10, sizes=mixed)
    assert free.limit == 200
    ideal = free.per_second / 200 * 50
    _, usual = seen(service(at_once=50), limits(), 20, 20, sizes=mixed)
    assert usual.per_second >= 0.92 * ideal
    assert usual.limit <= 125


def test_a_most_of_calls_at_once_that_is_enforced_is_kept_to() -> None:
    _, usual = seen(Service(most_calls=10), limits(), 120, 300)
    assert 10 <= usual.limit <= 14
    assert usual.per_second >= 60  # of 98: until it is known better, it is taken for a rate, too
    assert usual.share_refused <= 0.002


def test_retry_after_is_kept_by_all_of_the_account() -> None:
    service = Service(requests=Window(1000, 60), retry_after=30)
    first, later = seen(service, limits(), 9, 29)
    assert first.refused > 0
    assert later.answered == 0
