"""What comes of the limits at services that have quotas, and that slow down: simulated, on virtual time."""

import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from service import settings
from service.limits import Limits
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


@pytest.mark.parametrize("kind", [Bucket, Window])
@pytest.mark.parametrize("per_second", [16, 40, 200])
def test_of_a_quota_that_is_known_97_percent_are_used_and_nothing_is_throttled(
    kind: type[Bucket | Window], per_second: float
) -> None:
    _, usual = seen(Service(requests=kind(per_second)), limits(requests_per_second=per_second), 5, 60)
    assert usual.per_second >= 0.97 * per_second
    assert usual.refused == 0


def test_of_a_thousand_requests_a_minute_97_percent_are_used_and_nothing_is_throttled() -> None:
    first, usual = seen(Service(requests=Window(1000, 60)), limits(requests_per_minute=1000), 60, 300)
    assert usual.per_second >= 0.97 * 1000 / 60
    assert first.refused == usual.refused == 0


def test_of_ten_inference_units_97_percent_are_used_and_nothing_is_throttled() -> None:
    chance = random.Random(4)  # noqa: S311  keeps no secret
    sizes = [(min(950, int(chance.lognormvariate(4, 1))), 1) for _ in range(1000)]
    service = Service(characters=Bucket(1000), documents=Bucket(20))
    gate = limits(characters_per_second=1000, documents_per_second=20)
    (usual,) = seen(service, gate, 600, sizes=lambda: itertools.cycle(sizes))
    ideal = len(sizes) / sum(max(characters / 1000, documents / 20) for characters, documents in sizes)
    assert usual.per_second >= 0.97 * ideal
    assert usual.refused == 0


@pytest.mark.parametrize(
    ("kind", "per_second", "used"), [(Bucket, 40, 0.95), (Bucket, 200, 0.95), (Window, 40, 0.85), (Window, 200, 0.88)]
)
def test_a_quota_that_nobody_told_is_learnt(kind: type[Bucket | Window], per_second: float, used: float) -> None:
    _, usual = seen(Service(requests=kind(per_second)), limits(), 15, 120)
    assert usual.per_second >= used * per_second
    assert usual.share_refused <= 0.003


def test_a_quota_that_changes_in_mid_run_is_followed_down_and_up() -> None:
    service = Service(requests=Bucket(200))

    def change(per_second: float) -> Callable[[Service], object]:
        return lambda service: setattr(service, "requests", Bucket(per_second))

    before, falling, less, _, more = seen(service, limits(), 30, change(40), 15, 60, change(200), 90, 30)
    assert before.per_second >= 190
    assert falling.refused <= 40
    assert 36 <= less.per_second <= 41
    assert less.share_refused <= 0.005
    assert more.per_second >= 190


def test_a_quota_that_is_less_than_was_said_is_found_out() -> None:
    _, usual = seen(Service(requests=Bucket(40)), limits(requests_per_second=200), 15, 120)
    assert usual.per_second >= 0.93 * 40
    assert usual.share_refused <= 0.003


@pytest.mark.parametrize("unevenness", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("at_once", [4, 20, 100])
def test_there_are_as_many_calls_as_a_service_works_at_and_not_many_more(at_once: int, unevenness: float) -> None:
    _, usual = seen(Service(at_once=at_once, unevenness=unevenness), limits(), 6, 15)
    ideal = at_once / (0.1 * 2.718281828 ** (unevenness**2 / 2))
    assert usual.per_second >= 0.95 * ideal
    assert usual.took <= 0.25


def test_a_service_that_never_slows_down_gets_as_many_as_it_may() -> None:
    _, usual = seen(Service(), limits(most_in_flight=100), 5, 5)
    assert usual.limit == 100


def test_a_service_that_works_at_fewer_and_then_at_more_is_followed() -> None:
    def change(at_once: int) -> Callable[[Service], object]:
        return lambda service: setattr(service, "at_once", at_once)

    service = Service(at_once=20)
    _, fewer, _, more = seen(service, limits(), 10, change(10), 15, change(80), 10, 10)
    assert fewer.limit <= 20
    assert fewer.per_second >= 95
    assert more.per_second >= 0.95 * 780


def test_a_service_that_is_slower_for_reasons_of_its_own_keeps_its_calls() -> None:
    def change(service: Service) -> None:
        service.seconds = lambda _: 0.3

    gate = limits(most_in_flight=100)
    _, slower = seen(Service(), gate, 10, change, 30)
    assert slower.limit == 100


@pytest.mark.parametrize("unevenness", [0.05, 0.6])
def test_jobs_of_minutes_are_judged_by_jobs_of_minutes(unevenness: float) -> None:
    def jobs(at_once: int = 10**6) -> Service:
        return Service(seconds=lambda _: 120, at_once=at_once, unevenness=unevenness)

    _, usual = seen(jobs(at_once=40), limits(), 2400, 20_000)
    assert usual.per_second >= 0.95 * 40 / 120 / 2.718281828 ** (unevenness**2 / 2)
    assert usual.took <= 240
    _, usual = seen(jobs(), limits(), 3600, 3600)
    assert usual.limit == 200


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
    assert usual.limit in {10, 11}
    assert usual.per_second >= 75
    assert usual.share_refused <= 0.001


def test_retry_after_is_kept_by_all_of_the_account() -> None:
    service = Service(requests=Window(1000, 60), retry_after=30)
    first, later = seen(service, limits(), 9, 29)
    assert first.refused > 0
    assert later.answered == 0
