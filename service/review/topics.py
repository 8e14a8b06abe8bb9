"""Questions and decisions as they are read from their topics.

Decisions are read before questions, each up to its end: whoever decides has been asked before, so that no question is
missing of a decision that was read.
"""

from collections.abc import Callable

from service import settings
from service.documents import Record
from service.errors import Misconfigured
from service.offsets import Partition
from service.review.join import Decision, Question, Reviews, decision, question
from service.settings.review import Review
from service.streams import kafka, kafka_letters


class Topics:
    """The two topics of a stream; each `read` goes on where the last one ended."""

    def __init__(self, connection: settings.Kafka, review: Review) -> None:
        self._connection = connection
        self._review = review
        self._at: dict[Partition, int] = {}

    async def check(self) -> None:
        """See that both are there. Raises Misconfigured and Unavailable."""
        if missing := await kafka.missing_topics(self._connection, {self._review.topic, self._review.decisions}):
            raise Misconfigured(f"review: there is no topic {missing[0]!r} that this user may see; create it")

    async def read(self, reviews: Reviews, *, texts: bool) -> None:
        """Tell what is new to the join, all of it or nothing; without `texts`, those of the questions are left out.

        Raises Misconfigured and Unavailable, after which the same is new still.
        """
        decided, asked = list[Decision | None](), list[Question]()
        decisions = await self._news(self._review.decisions, lambda record: decided.append(decision(record)))
        decided.sort(key=lambda each: each.at if each is not None else 0)
        wanted = {each.id for each in decided if each is not None}

        def ask(record: Record) -> None:
            if (found := question(record)) is not None:
                asked.append(found if texts and found.id in wanted else found._replace(text=""))

        questions = await self._news(self._review.topic, ask)
        for each in asked:
            reviews.ask(each)
        for one in decided:
            reviews.decide(one)
        self._at |= {**decisions, **questions}

    async def _news(self, topic: str, take: Callable[[Record], None]) -> dict[Partition, int]:
        """Give what is new in a topic to `take`; gives how far that is."""
        async with kafka_letters.opened(self._connection, topic, f"{self._connection.group_id}.reviews") as log:
            extents = await log.extents(None, None)
            begins = {partition: max(each.beginning, self._at.get(partition, 0)) for partition, each in extents.items()}
            ahead = {
                partition: (begins[partition], each.end)
                for partition, each in extents.items()
                if begins[partition] < each.end
            }
            log.go_to(ahead)
            while records := await log.read():
                for record in records:
                    take(record)
            return dict(await log.positions())
