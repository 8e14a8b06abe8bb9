"""Documents for what a life has made, put to the account's ordinary provider."""

from collections.abc import Sequence

from service import settings
from service.dispatch import accounts
from service.dispatch.answers import Batch
from service.dispatch.dispatcher import Dispatcher
from service.documents import Classified, Document, Position, Record
from service.observability.telemetry import Telemetry
from tests.classifiers import unnoted


async def classes(branch: settings.Account, texts: Sequence[str]) -> list[str]:
    """The first class of each text, empty where it has none."""
    found = []
    async with accounts.opened({"it": branch}, ["it"], Telemetry()) as ready:
        dispatcher = Dispatcher([ready["it"]])
        for number, text in enumerate(texts):
            document = Document(Record(Position("in", 0, number), 0, None, b""), str(number), text, None, 0.0)
            (answer,) = await dispatcher.classify(Batch([document]), unnoted())
            (outcome,) = answer.outcomes
            assert isinstance(outcome, Classified)
            found.append(outcome.classes[0].name if outcome.classes else "")
    return found
