"""`labelstream reviews watch`: how often people agree, as metrics, for as long as it runs.

One process is enough for all streams. It keeps the label and the time of each question, no text, and lets go of those
that are older than twice `review.within`. A restart reads the topics anew, as far back as they go: what was agreed and
corrected comes to the same figures.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from service.errors import Misconfigured, Unavailable
from service.observability import health, messages
from service.observability.telemetry import ReviewStatistics, Telemetry
from service.review.join import Became, Reviews
from service.review.topics import Topics
from service.settings import Settings
from service.settings.review import Review

EVERY = 15.0
"""Seconds between two looks at the topics."""
_DAY = 86_400.0

log = structlog.get_logger(__name__)


async def watch(settings: Settings, stop: asyncio.Event, started: Callable[[str], None] = lambda _: None) -> None:
    """Show metrics until `stop` is set; `started` is told the health URL.

    Raises (in an ExceptionGroup) Misconfigured or Unavailable, at the start.
    """
    asked = {stream.input: stream.review for stream in settings.streams if stream.review is not None}
    if not asked:
        raise Misconfigured("streams: none has a review, so nobody is asked anything; give it")
    telemetry = Telemetry()
    async with messages.kept() as last, health.served(health.app(telemetry, last), settings.health) as url:
        followed = [(review, Reviews(review.within), Topics(settings.kafka, review)) for review in asked.values()]
        for topic, (_, reviews, topics) in zip(asked, followed, strict=True):
            await topics.check()
            telemetry.watch_reviews(partial(_statistics, topic, reviews))
        log.info("started", streams=[*asked], health=url)
        started(url)
        while not stop.is_set():
            for review, reviews, topics in followed:
                await _look(review, reviews, topics)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), EVERY)
    log.info("stopped")


async def _look(review: Review, reviews: Reviews, topics: Topics) -> None:
    try:
        await topics.read(reviews, texts=False)
    except Unavailable as error:  # it is read where it was left, once a broker is there again
        log.warning("reviews_unread", topic=review.topic, reason=str(error))
    reviews.forget(1000 * (time.time() - 2 * review.within))


def _statistics(topic: str, reviews: Reviews) -> ReviewStatistics:
    of_a_day = reviews.since(1000 * (time.time() - _DAY))
    return ReviewStatistics(topic, _named(reviews.became), _named(of_a_day))


def _named(became: Mapping[tuple[str, Became], int]) -> dict[tuple[str, str], int]:
    return {(best, what.value): count for (best, what), count in became.items()}
