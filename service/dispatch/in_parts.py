"""A document that is too long for every account: asked for in parts, whose answers make one."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from service.batches import packed
from service.dispatch.account import Account, JobNotes
from service.dispatch.answers import Answer, Batch
from service.dispatch.calls import Able, Calls, Elsewhere, resume
from service.dispatch.parts import merged
from service.documents import Document
from service.errors import JobLost, Misconfigured, Rejected
from service.jobs.notes import Job

log = structlog.get_logger(__name__)


class InParts:
    """The way of a stream's accounts with long documents: in at most so many parts."""

    def __init__(self, accounts: Sequence[Account], calls: Calls, most: int) -> None:
        self.most = most
        self._accounts = accounts
        self._calls = calls

    def can_cut(self, text: str) -> bool:
        """Whether an account takes a text that way."""
        return self.most > 1 and any(account.cut(text, self.most) for account in self._accounts)

    async def ask(self, batch: Batch, document: Document, notes: JobNotes) -> Answer | None:
        """The answer of one account that is asked for all of a document's parts; None where they are too many for all.

        Which account began it is believed to be well for a while, as what it has answered is paid for. If another has
        to take over it does so from the beginning, for no two models' scores are alike.
        """
        cut = {account: _parts(document, account.cut(document.text, self.most)) for account in self._accounts}
        able = [account for account in self._accounts if cut[account]]
        if not able:
            return None
        answers = {account: await _resumed(batch, account, cut[account], notes) for account in able}
        begun = next((account for account in able if answers[account]), None)
        while True:
            account = begun or Able(able).first
            parts, answered, begun = cut[account], answers[account], None
            missing = [part for part in parts if part.part not in answered]
            one = Able([account, *(other for other in able if other is not account)], begun=account)
            portions = packed(missing, account.most)
            asking = [self._calls.ask(batch, portion, notes, one) for portion in portions]
            for came in await asyncio.gather(*asking, return_exceptions=True):
                if isinstance(came, BaseException) and not isinstance(came, Elsewhere):
                    raise came
                if not isinstance(came, BaseException):
                    answered |= {part.part: answer for answer in came for part in answer.documents}
            if len(answered) == len(parts):
                return _joined(document, parts, answered)


async def _resumed(batch: Batch, account: Account, parts: Sequence[Document], notes: JobNotes) -> dict[int, Answer]:
    """What jobs of an earlier life answer of a document's parts."""
    jobs: dict[Job, dict[int, Document]] = {}
    for part in parts:
        if claim := notes.claimed(part, account.name):
            job, number = claim
            jobs.setdefault(job, {})[number] = part
    answered = dict[int, Answer]()
    for job, held in jobs.items():
        try:
            answer = await resume(batch, job, held, account)
        except (JobLost, Rejected, Misconfigured) as loss:
            log.info("job_not_resumed", account=job.account, documents=1, reason=str(loss))
        else:
            answered |= {part.part: answer for part in answer.documents}
    return answered


def _parts(document: Document, texts: Sequence[str] | None) -> list[Document]:
    return [document._replace(text=text, part=number) for number, text in enumerate(texts or (), 1)]


def _joined(document: Document, parts: Sequence[Document], answers: Mapping[int, Answer]) -> Answer:
    """The answer for a document by those for its parts."""
    given = [answers[part.part] for part in parts]
    outcomes = [
        dict(zip((each.part for each in answer.documents), answer.outcomes, strict=True))[part.part]
        for part, answer in zip(parts, given, strict=True)
    ]
    account = given[0].account
    account.telemetry.joined(len(parts))
    outcome = merged([part.text for part in parts], outcomes, account.provider.task)
    return Answer([document], [outcome], account, max(each.attempts for each in given), max(each.at for each in given))
