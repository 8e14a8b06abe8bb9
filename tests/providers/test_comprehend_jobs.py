import asyncio
import gzip
import io
import json
import logging
import tarfile
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from service import settings
from service.dispatch.account import Account
from service.documents import Classified, ClassScore, Document, Outcome, Reason, Refused
from service.errors import CallFailed, JobLost, Misconfigured, Rejected, Throttled, Unavailable
from service.providers import comprehend_jobs
from service.providers.comprehend_jobs import ComprehendJobs
from tests.providers.aws import (
    ANYTHING,
    CONTRACT,
    HTML,
    REGION,
    SECRET_KEY,
    WORDS,
    alone,
    document,
    no,
    opened,
    streamed,
    well,
)
from tests.providers.conftest import Replay, Reply
from tests.providers.s3 import (
    JOB,
    OUTPUT,
    STARTED,
    Buckets,
    archive,
    branch,
    classifier,
    job,
    packed,
    prediction,
    stored,
)
from tests.records import numbered

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "my password is tr0ub4dor"


@pytest.fixture(scope="module")
def moto() -> Iterator[Buckets]:
    with stored() as buckets:
        yield buckets


@pytest.fixture
def buckets(moto: Buckets) -> Buckets:
    moto.clear()
    return moto


@pytest.fixture(autouse=True)
def nothing_ambient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone(monkeypatch, tmp_path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def single(replaying: Replay, moto: Buckets) -> AsyncIterator[Account]:
    async with opened(branch(replaying.url, moto.url)) as account:
        yield account


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def multi(replaying: Replay, moto: Buckets) -> AsyncIterator[Account]:
    async with opened(branch(replaying.url, moto.url, task="multi_label")) as account:
        yield account


def jobs(account: Account) -> ComprehendJobs:
    assert isinstance(account.provider, ComprehendJobs)
    return account.provider


def documents(*texts: str) -> list[Document]:
    return [document(text, number) for number, text in enumerate(texts)]


async def results(
    account: Account, replay: Replay, buckets: Buckets, data: bytes, asked: Sequence[Document]
) -> list[Outcome] | None:
    """What comes of a finished job that left this."""
    buckets.put(data)
    replay.answer(job("COMPLETED"))
    return await jobs(account).poll(f"a-token/{len(asked)}/{JOB}", numbered(asked))


def told(replay: Replay, operation: str) -> list[Any]:
    """The bodies of the requests for an operation."""
    target = f"Comprehend_20171127.{operation}"
    return [each.json for each in replay.requests if each.headers["x-amz-target"] == target]


# The documented examples


def exchanges(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CONTRACT / f"{name}.json").read_text("utf-8"))["exchanges"]
    return found


def replies(name: str) -> list[Reply]:
    found = [each["response"] for each in exchanges(name)]
    return [Reply(each["status"], json.dumps(each["body"]).encode(), each["headers"]) for each in found]


async def test_a_job_is_asked_for_as_documented(single: Account, replay: Replay, buckets: Buckets) -> None:
    replay.answer(*replies("job"))
    asked = documents("I was charged twice.", "Where is it?")
    name = await jobs(single).submit(asked)
    buckets.put(archive([prediction("0", ("billing", 0.9)), prediction("1", ("delivery", 0.8), ("billing", 0.1))]))
    assert await jobs(single).poll(name, numbered(asked)) is None
    assert await jobs(single).poll(name, numbered(asked)) is None
    assert await jobs(single).poll(name, numbered(asked)) == [
        Classified((ClassScore("billing", 0.9),), units=3),
        Classified((ClassScore("delivery", 0.8), ClassScore("billing", 0.1)), units=3),
    ]
    token, size, job_id = name.split("/")
    assert (size, job_id) == ("2", JOB)
    for received, each in zip(replay.requests, exchanges("job"), strict=True):
        request = each["request"]
        assert {header: received.headers[header.lower()] for header in request["headers"]} == request["headers"]
        assert received.json == json.loads(json.dumps(request["body"]).replace("{token}", token))


def best(outcome: Outcome) -> str:
    assert isinstance(outcome, Classified)
    return outcome.classes[0].name


async def test_documented_ends_are_named_by_what_to_do_next(single: Account, replay: Replay, buckets: Buckets) -> None:
    replay.answer(*replies("job_failed"))
    with pytest.raises(Misconfigured, match=r"NO_READ_ACCESS_TO_INPUT.*check data_access_role_arn, input_uri"):
        await jobs(single).poll(f"a/1/{JOB}", numbered(documents("a")))
    with pytest.raises(JobLost, match=r"ended as FAILED \(no code given\)"):
        await jobs(single).poll(f"a/1/{JOB}", numbered(documents("a")))
    with pytest.raises(JobLost, match=r"JobNotFoundException: it does not know a job any more"):
        await jobs(single).poll(f"a/1/{JOB}", numbered(documents("a")))
    assert buckets.keys("tickets-in") == []


# Submitting


async def test_each_document_is_one_line_of_one_object(single: Account, replay: Replay, buckets: Buckets) -> None:
    replay.answer(STARTED)
    texts = ["two\nlines", "three\r\nof\rthem", "next\u2028para\u2029graph\x85", "", "Größe 🙂", "cut \ud83d", "\n\n"]
    name = await jobs(single).submit(documents(*texts))
    (key,) = buckets.keys("tickets-in")
    assert key == f"labelstream/{name.partition('/')[0]}.txt"
    body = buckets.read(key)
    lines = [line.rstrip(" ") for line in body.decode().split("\n")]
    expected = ["two lines", "three of them", "next para graph", "", "Größe 🙂", "cut \ufffd", "", ""]
    assert lines == expected
    assert len(body) >= 500
    assert buckets.head(key)["ContentType"] == "text/plain; charset=utf-8"


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=20))
async def test_documents_are_as_many_lines_whatever_is_in_them(texts: list[str]) -> None:
    body = comprehend_jobs._lines(documents(*texts)).decode()
    assert body.endswith("\n")
    lines = body.removesuffix("\n").split("\n")
    assert len(lines) == len(texts)
    assert not any(len(line.splitlines()) > 1 for line in lines)
    assert [line.split() for line in lines] == [text.split() for text in texts]


async def test_a_submission_that_is_repeated_starts_no_other_job(
    single: Account, replay: Replay, buckets: Buckets
) -> None:
    replay.answer(no("InternalServerException", 500), well(), STARTED)
    asked = documents("once", "and only once")
    for words in ("500 InternalServerException", "answered with no job"):
        with pytest.raises(Unavailable, match=words):
            await jobs(single).submit(asked)
    first = await jobs(single).submit(asked)
    async with opened(branch(replay.url, buckets.url)) as another_process:
        replay.answer(STARTED)
        assert await jobs(another_process).submit(asked) == first
    tokens = {each["ClientRequestToken"] for each in told(replay, "StartDocumentClassificationJob")}
    assert tokens == {first.partition("/")[0]}
    assert len(buckets.keys("tickets-in")) == 1


async def test_documents_of_a_lost_job_get_another(single: Account, replay: Replay, buckets: Buckets) -> None:
    asked = documents("lost")
    replay.answer(STARTED, job("FAILED"), STARTED, STARTED, STARTED)
    first = await jobs(single).submit(asked)
    with pytest.raises(JobLost):
        await jobs(single).poll(first, numbered(asked))
    assert buckets.keys("tickets-in") == []
    second = await jobs(single).submit(asked)
    await jobs(single).cancel(second)
    assert buckets.keys("tickets-in") == []
    third = await jobs(single).submit(asked)
    other = await jobs(single).submit([document("lost", 7)])
    assert len({first, second, third, other}) == 4


@pytest.mark.parametrize(
    ("reply", "kind", "words", "left"),
    [
        (no("InvalidRequestException"), Misconfigured, "check classifier_arn, the role, and that the buckets", 0),
        (no("KmsKeyValidationException"), Misconfigured, "check kms_key_id", 0),
        (no("ResourceNotFoundException"), Misconfigured, "check classifier_arn", 0),
        (no("AccessDeniedException"), Misconfigured, "allow comprehend:StartDocumentClassificationJob", 0),
        (no("SomethingNewException"), Rejected, "SomethingNewException", 0),
        (no("TooManyRequestsException"), Throttled, "TooManyRequestsException", 1),
        (no("ResourceLimitExceededException"), Throttled, "too many jobs are under way", 1),
        (no("ResourceUnavailableException"), Unavailable, "does not serve", 1),
        (HTML, Unavailable, "500", 1),
        (well(JobId="../../etc"), Unavailable, "no job", 1),
    ],
)
async def test_a_start_that_fails_keeps_the_documents_only_where_it_will_be_tried_again(
    reply: Reply, kind: type[CallFailed], words: str, left: int, *, single: Account, replay: Replay, buckets: Buckets
) -> None:
    replay.answer(reply)
    with pytest.raises(kind, match=words) as caught:
        await jobs(single).submit(documents("a"))
    assert type(caught.value) is kind
    assert len(buckets.keys("tickets-in")) == left


async def test_a_bucket_that_is_not_there_is_named(replay: Replay, buckets: Buckets) -> None:
    async with opened(branch(replay.url, buckets.url, input_uri="s3://nowhere-at-all")) as account:
        with pytest.raises(Misconfigured, match="NoSuchBucket: check input_uri and output_uri"):
            await jobs(account).submit(documents("a"))


async def test_a_key_encrypts_documents_and_results(replay: Replay, buckets: Buckets) -> None:
    key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"
    async with opened(branch(replay.url, buckets.url, kms_key_id=key, input_uri="s3://tickets-in")) as account:
        replay.answer(STARTED)
        await jobs(account).submit(documents("a"))
    (name,) = buckets.keys("tickets-in")
    head = buckets.head(name)
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)
    (start,) = told(replay, "StartDocumentClassificationJob")
    assert start["OutputDataConfig"] == {"S3Uri": "s3://tickets-out/labelstream/", "KmsKeyId": key}
    assert start["InputDataConfig"]["S3Uri"] == f"s3://tickets-in/{name}"


# Polling


@pytest.mark.parametrize("status", ["SUBMITTED", "IN_PROGRESS", "STOP_REQUESTED", "SOMETHING_NEW"])
async def test_a_job_that_is_not_done_is_waited_for(status: str, single: Account, replay: Replay) -> None:
    replay.answer(job(status))
    assert await jobs(single).poll(f"a/1/{JOB}", numbered(documents("a"))) is None


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (job("STOPPED"), JobLost, "STOPPED"),
        (job("FAILED", Message=None), JobLost, "FAILED"),
        (job("FAILED", Message=f"Could not read {TEXT}"), JobLost, "no code given"),
        (job("FAILED", Message="INTERNAL_SERVER_ERROR: No."), JobLost, "INTERNAL_SERVER_ERROR"),
        (job("FAILED", Message="NO_WRITE_ACCESS_TO_OUTPUT: No."), Misconfigured, "output_uri and kms_key_id"),
        (job("COMPLETED"), JobLost, r"results of a job are gone \(NoSuchKey\)"),
        (job("COMPLETED", f"s3://elsewhere/labelstream/{OUTPUT}"), JobLost, "elsewhere than below output_uri"),
        (job("COMPLETED", "s3://tickets-out/labelstream/"), JobLost, "elsewhere than below output_uri"),
        (job("COMPLETED", f"s3://tickets-out/labelstream-too/{OUTPUT}"), JobLost, "elsewhere than below"),
        (no("ResourceNotFoundException"), JobLost, "does not know a job"),
        (no("ThrottlingException"), Throttled, "ThrottlingException"),
        (no("AccessDeniedException"), Misconfigured, "allow comprehend:DescribeDocumentClassificationJob"),
        (no("InternalServerException", 500), Unavailable, "500"),
        (HTML, Unavailable, "500"),
        (well(), Unavailable, "no job"),
        (well(DocumentClassificationJobProperties={}), Unavailable, "no job"),
        (Reply(200, b"[1]"), Unavailable, "cannot be read"),
    ],
)
async def test_a_poll_that_fails_says_what_to_do_next(
    reply: Reply, kind: type[CallFailed], words: str, *, single: Account, replay: Replay, buckets: Buckets
) -> None:
    assert buckets.keys("tickets-out") == []
    replay.answer(reply)
    with pytest.raises(kind, match=words) as caught:
        await jobs(single).poll(f"a/1/{JOB}", numbered(documents("a")))
    assert type(caught.value) is kind
    assert "tr0ub4dor" not in str(caught.value)


# Results


async def test_results_are_told_apart_by_their_lines(single: Account, replay: Replay, buckets: Buckets) -> None:
    asked = documents("a" * 300, "b" * 301, "c")
    lines = [prediction(2, ("c", 0.7)), prediction("1", ("x", 0.2), ("b", 0.8)), prediction("0", ("a", 1))]
    assert await results(single, replay, buckets, archive(lines, "../../etc/output"), asked) == [
        Classified((ClassScore("a", 1.0),), units=3),
        Classified((ClassScore("b", 0.8), ClassScore("x", 0.2)), units=4),
        Classified((ClassScore("c", 0.7),), units=3),
    ]


async def test_labels_may_be_many_or_none(multi: Account, replay: Replay, buckets: Buckets) -> None:
    lines = [prediction("0", ("a", 0.8642), ("b", 0.9), field="Labels"), prediction("1", field="Labels")]
    assert await results(multi, replay, buckets, archive(lines), documents("a", "b")) == [
        Classified((ClassScore("b", 0.9), ClassScore("a", 0.8642)), units=3),
        Classified((), units=3),
    ]


async def test_a_document_at_fault_does_not_spoil_the_others(single: Account, replay: Replay, buckets: Buckets) -> None:
    lines = [
        prediction("0", ("a", 0.9)),
        {"File": "0.txt", "Line": "1", "ErrorCode": "PAGE_CHARACTERS_EXCEEDED", "ErrorMessage": TEXT},
        prediction("3"),
    ]
    outcomes = await results(single, replay, buckets, archive(lines), documents("a", "b", "c", "d"))
    assert outcomes == [
        Classified((ClassScore("a", 0.9),), units=3),
        Refused(Reason.REFUSED_BY_CLASSIFIER, "PAGE_CHARACTERS_EXCEEDED"),
        Refused(Reason.REFUSED_BY_CLASSIFIER, "the results of its job leave it out"),
        Refused(Reason.REFUSED_BY_CLASSIFIER, "it has no class"),
    ]


def directory(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


ONE = json.dumps(prediction("0", ("a", 0.9))).encode()


async def test_what_is_no_file_in_an_archive_is_passed_over(single: Account, replay: Replay, buckets: Buckets) -> None:
    data = packed((directory("output"), b""), (link("output/a", "/etc/passwd"), b""), (tarfile.TarInfo("/b"), ONE))
    outcomes = await results(single, replay, buckets, data, documents("a"))
    assert outcomes == [Classified((ClassScore("a", 0.9),), units=3)]


def bomb() -> bytes:
    return packed((tarfile.TarInfo("a"), b"\n" * 20_000_000))


def sparse() -> bytes:
    """A file that says of itself that it is 8 GiB of nothing."""
    member = tarfile.TarInfo("a")
    member.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    head[483:495] = b"77777777777\x00"  # the real size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\x00 " % sum(head)
    return gzip.compress(bytes(head) + bytes(1024))


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", JobLost, "cannot be read"),
        (b"not an archive", JobLost, "cannot be read"),
        (gzip.compress(b"not an archive"), JobLost, "cannot be read"),
        (archive([prediction("0", ("a", 0.9))])[:-20], JobLost, "cannot be read"),
        (packed(), JobLost, "a job has no results"),
        (archive([]), JobLost, "a job has no results"),
        (packed((link("a", "/etc/passwd"), b"")), JobLost, "a job has no results"),
        (sparse(), JobLost, "a job has no results"),
        (bomb(), JobLost, r"cannot be read \(ValueError\)"),
        (packed((tarfile.TarInfo("a"), b"x" * 1_050_000)), JobLost, "cannot be read"),
        (packed((tarfile.TarInfo("a"), TEXT.encode())), JobLost, "cannot be read"),
        (packed((tarfile.TarInfo("a"), b"\xff\xfe")), JobLost, "cannot be read"),
        (archive([5]), JobLost, "cannot be read"),
        (archive([prediction("0", ("a", 0.9))] * 2), JobLost, "cannot be read"),
        (archive([prediction("1", ("a", 0.9))]), JobLost, "cannot be read"),
        (archive([prediction("-1", ("a", 0.9))]), JobLost, "cannot be read"),
        (archive([prediction(TEXT, ("a", 0.9))]), JobLost, "cannot be read"),
        (archive([prediction(0.5, ("a", 0.9))]), JobLost, "cannot be read"),
        (archive([{"Line": "0"}]), JobLost, "cannot be read"),
        (archive([{"Classes": []}]), JobLost, "cannot be read"),
        (archive([prediction("0", (TEXT, 1.9))]), JobLost, "cannot be read"),
        (archive([{"Line": "0", "Classes": {}, "Errors": 5}]), JobLost, "cannot be read"),
        (archive([{"Line": "0", "ErrorCode": "INTERNAL_SERVER_ERROR"}]), JobLost, "failed on tickets.incoming-3-800"),
        (archive([prediction("0", ("a", 0.9), field="Labels")]), Misconfigured, "check task"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else getattr(value, "__name__", value),
)
async def test_results_that_cannot_be_true_are_none(
    data: bytes, kind: type[CallFailed], words: str, *, single: Account, replay: Replay, buckets: Buckets
) -> None:
    with pytest.raises(kind, match=words) as caught:
        await results(single, replay, buckets, data, documents(TEXT))
    assert type(caught.value) is kind
    assert "tr0ub4dor" not in "".join(traceback.format_exception(caught.value))


@given(st.lists(ANYTHING | st.dictionaries(st.sampled_from(WORDS), ANYTHING), max_size=3))
async def test_whatever_results_hold_they_mean_something(single: Account, lines: list[object]) -> None:
    file = io.BytesIO(archive(lines))
    with suppress(CallFailed, *comprehend_jobs._UNREADABLE):
        outcomes = comprehend_jobs._outcomes(file, 1_000_000, numbered(documents("a", "b")), 2, single.provider.task)
        assert [type(outcome) in {Classified, Refused} for outcome in outcomes] == [True, True]


async def test_results_that_are_too_long_are_not_read_to_the_end(
    single: Account, replay: Replay, buckets: Buckets
) -> None:
    with pytest.raises(JobLost, match="the results of a job are longer than 1,114,112 bytes"):
        await results(single, replay, buckets, bytes(1_200_000), documents("a"))


async def test_thousands_of_documents_go_in_one_job_through_the_pipeline(replay: Replay, buckets: Buckets) -> None:
    texts = [f"{('billing', 'delivery', 'refund')[number % 3]} {number}" for number in range(3_000)]
    async with opened(branch(replay.url, buckets.url)) as account:
        replay.answer(STARTED, job("IN_PROGRESS"))  # then there is an outage, until the results are there
        streaming = asyncio.create_task(streamed(account, texts, documents=5_000, wait=60))
        while not (keys := buckets.keys("tickets-in")):  # noqa: ASYNC110  a bucket has no event to wait for
            await asyncio.sleep(0.01)
        lines = (await asyncio.to_thread(buckets.read, keys[0])).decode().splitlines()
        buckets.put(archive(prediction(str(i), (line.split()[0], 0.9)) for i, line in enumerate(lines)))
        replay.answer(job("COMPLETED"))
        sink = await streaming
    results = [json.loads(message.value or b"") for message in sink.to("out")]
    found = {result["source"]["offset"]: result["best"]["name"] for result in results}
    assert found == {number: text.split()[0] for number, text in enumerate(texts)}
    assert len(told(replay, "StartDocumentClassificationJob")) == 1


# What is left


async def test_documents_and_results_are_deleted_once_what_came_of_a_job_is_safe(
    single: Account, replay: Replay, buckets: Buckets
) -> None:
    replay.answer(STARTED)
    name = await jobs(single).submit(documents("a"))
    buckets.put(archive([prediction("0", ("a", 0.9))]))
    assert buckets.keys("tickets-in")
    replay.answer(job("COMPLETED"))
    await jobs(single).poll(name, numbered(documents("a")))
    assert (len(buckets.keys("tickets-in")), len(buckets.keys("tickets-out"))) == (0, 1)
    await jobs(single).clear(name)
    assert buckets.keys("tickets-in") == buckets.keys("tickets-out") == []


async def test_objects_are_kept_where_that_is_asked_for(replay: Replay, buckets: Buckets) -> None:
    async with opened(branch(replay.url, buckets.url, keep_objects=True)) as account:
        replay.answer(STARTED)
        name = await jobs(account).submit(documents("a"))
        buckets.put(archive([prediction("0", ("a", 0.9))]))
        replay.answer(job("COMPLETED"))
        await jobs(account).poll(name, numbered(documents("a")))
        await jobs(account).clear(name)
        await jobs(account).cancel(name)
    assert len(buckets.keys("tickets-in")) == len(buckets.keys("tickets-out")) == 1


async def test_whoever_has_some_documents_of_a_job_reads_those(
    single: Account, replay: Replay, buckets: Buckets
) -> None:
    buckets.put(archive([prediction(str(number), (f"class-{number}", 0.9)) for number in range(4)]))
    replay.answer(job("COMPLETED"), job("COMPLETED"))
    asked = documents(*"abcd")
    for mine in ((3, 1), (0, 2)):
        outcomes = await jobs(single).poll(f"a-token/4/{JOB}", {number: asked[number] for number in mine})
        assert outcomes is not None
        assert [best(outcome) for outcome in outcomes] == [f"class-{number}" for number in mine]


async def test_an_answer_is_not_lost_with_an_object_that_stays(
    replay: Replay, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    denied = Reply(403, b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>")
    async with opened(branch(replay.url, replay.url)) as account:  # S3 is whoever answers
        replay.answer(job("COMPLETED"), Reply(200, archive([prediction("0", ("a", 0.9))])), denied, Reply(503))
        outcomes = await jobs(account).poll(f"a-token/1/{JOB}", numbered(documents(TEXT)))
        await jobs(account).clear(f"a-token/1/{JOB}")
    assert outcomes == [Classified((ClassScore("a", 0.9),), units=3)]
    logged = caplog.text + "".join(capsys.readouterr())  # wherever an earlier test has sent it
    assert "object_left" in logged
    assert "s3:DeleteObject" in logged
    assert "tr0ub4dor" not in logged


async def test_a_download_that_breaks_off_is_tried_again(replay: Replay) -> None:
    whole = archive([prediction("0", ("a", 0.9))])
    async with opened(branch(replay.url, replay.url, keep_objects=True)) as account:
        replay.answer(job("COMPLETED"), Reply(500), job("COMPLETED"), Reply(200, whole))
        with pytest.raises(Unavailable) as caught:
            await jobs(account).poll(f"a-token/1/{JOB}", numbered(documents("a")))
        assert type(caught.value) is Unavailable
        assert await jobs(account).poll(f"a-token/1/{JOB}", numbered(documents("a")))


# Looking before asking


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (classifier("TRAINING"), Unavailable, "still in training"),
        (classifier("IN_ERROR"), Misconfigured, "version/2 is IN_ERROR: check classifier_arn"),
        (classifier("TRAINED", "MULTI_LABEL"), Misconfigured, "not trained for single_label: check task"),
        (well(), Unavailable, "no classifier"),
        (no("ResourceNotFoundException"), Misconfigured, "check classifier_arn"),
    ],
)
async def test_a_look_that_fails_says_what_to_do_next(
    reply: Reply, kind: type[CallFailed], words: str, *, single: Account, replay: Replay
) -> None:
    replay.answer(reply)
    with pytest.raises(kind, match=words):
        await jobs(single).probe()


@pytest.mark.parametrize("status", ["TRAINED", "TRAINED_WITH_WARNING"])
async def test_a_trained_classifier_with_both_folders_may_be_asked(
    status: str, single: Account, replay: Replay
) -> None:
    replay.answer(classifier(status))
    await jobs(single).probe()


@pytest.mark.parametrize("folder", ["input_uri", "output_uri"])
async def test_both_buckets_have_to_be_there(folder: str, replay: Replay, buckets: Buckets) -> None:
    async with opened(branch(replay.url, buckets.url, **{folder: "s3://nowhere-at-all/x"})) as account:
        replay.answer(classifier("TRAINED"))
        with pytest.raises(Misconfigured, match="NoSuchBucket: check input_uri and output_uri"):
            await jobs(account).probe()


async def test_a_bucket_that_is_forbidden_is_told_by_the_permission(replay: Replay) -> None:
    async with opened(branch(replay.url, replay.url)) as account:
        replay.answer(classifier("TRAINED"), Reply(403, b"<Error><Code>AccessDenied</Code></Error>"))
        with pytest.raises(Misconfigured, match="AccessDenied: see that the credentials allow s3:ListBucket"):
            await jobs(account).probe()


# What must be seen nowhere


async def test_neither_the_secret_nor_a_text_is_seen_anywhere(
    single: Account,
    replay: Replay,
    buckets: Buckets,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG, "service")
    seen = [repr(jobs(single)), repr(branch(replay.url, buckets.url))]
    replay.answer(no("InvalidRequestException", message=f"{TEXT} {SECRET_KEY}", Reason=TEXT), STARTED)
    with pytest.raises(CallFailed) as caught:
        await jobs(single).submit(documents(TEXT))
    seen += traceback.format_exception(caught.value)
    name = await jobs(single).submit(documents(TEXT))
    replay.answer(job("FAILED", Message=f"{TEXT} {SECRET_KEY}"))
    with pytest.raises(JobLost) as lost:
        await jobs(single).poll(name, numbered(documents(TEXT)))
    seen += [name, *traceback.format_exception(lost.value), caplog.text, *capsys.readouterr()]
    assert "tr0ub4dor" not in "".join(seen)
    assert SECRET_KEY not in "".join(seen)


async def test_what_it_is_can_be_seen(single: Account, replay: Replay) -> None:
    expected = f"ComprehendJobs('{replay.host}', 'document-classifier/tickets/version/2', 'single_label')"
    assert repr(single.provider) == expected
    assert (single.kind, single.provider.documents_per_call) == ("comprehend_jobs", 5_000)


# Settings


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"classifier_arn": f"{REGION}:document-classifier-endpoint/tickets"}, "is not of the form arn:aws:compreh"),
        ({"data_access_role_arn": "comprehend-data"}, "is not of the form arn:aws:iam::ACCOUNT:role/NAME"),
        ({"input_uri": "tickets-in/labelstream"}, "is not of the form s3://BUCKET/FOLDER"),
        ({"output_uri": "s3://Tickets"}, "is not of the form s3://BUCKET/FOLDER"),
        ({"documents_per_job": 0}, "greater than or equal to 1"),
        ({"storage_url": "http://s3.example"}, "storage_url would send documents unencrypted"),
        ({"access_key_id": None}, "secret_access_key is given, but no access_key_id"),
    ],
)
async def test_a_setting_that_is_wrong_is_named(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        branch(**{"endpoint_url": "http://127.0.0.1:1", "storage_url": "http://127.0.0.1:1", **changes})
    assert SECRET_KEY not in str(caught.value)


async def test_a_stream_may_gather_thousands_for_a_job() -> None:
    batch = settings.Batch(documents=5_000, characters=50_000_000, wait=60)
    capacity = settings.Capacity(documents=50_000)
    assert (batch.documents, capacity.documents) == (5_000, 50_000)
    assert branch("http://127.0.0.1:1", "http://127.0.0.1:1").region == "eu-west-1"


async def test_calls_that_are_cancelled_leave_clients_that_work(
    single: Account, replay: Replay, buckets: Buckets
) -> None:
    submitting = asyncio.create_task(jobs(single).submit(documents("a")))
    await asyncio.sleep(0)
    submitting.cancel()
    with suppress(asyncio.CancelledError):
        await submitting
    replay.replies.clear()
    replay.answer(STARTED)
    assert await jobs(single).submit(documents("a"))
    assert len(buckets.keys("tickets-in")) == 1
