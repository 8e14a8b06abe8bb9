import asyncio
import json
import logging
import ssl
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from hypothesis import given
from hypothesis import strategies as st

from service import settings
from service.dispatch.account import Account
from service.documents import Classified, ClassScore, Outcome, Reason, Refused
from service.errors import CallFailed, Misconfigured, Rejected, Throttled, Unavailable
from service.observability.telemetry import Telemetry
from service.providers.comprehend import Comprehend
from tests.providers.aws import (
    ACCESS_KEY,
    ANYTHING,
    CONTRACT,
    ENDPOINT_ARN,
    HTML,
    SECRET_KEY,
    WORDS,
    alone,
    document,
    no,
    opened,
    own,
    saying,
    streamed,
    well,
)
from tests.providers.conftest import Replay, Reply
from tests.providers.networks import listening

pytestmark = pytest.mark.asyncio(loop_scope="module")

BILLING = well(Classes=[{"Name": "billing", "Score": 0.9}])


def branch(endpoint_url: str = "http://127.0.0.1:1", **changes: Any) -> settings.Comprehend:
    settled = {
        "provider": "comprehend",
        "endpoint_arn": ENDPOINT_ARN,
        "task": "single_label",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
        "endpoint_url": endpoint_url,
    }
    return settings.Comprehend(**settled | changes)


@pytest.fixture(autouse=True)
def nothing_ambient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone(monkeypatch, tmp_path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def single(replaying: Replay) -> AsyncIterator[Account]:
    async with opened(branch(replaying.url)) as account:
        yield account


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def multi(replaying: Replay) -> AsyncIterator[Account]:
    async with opened(branch(replaying.url, task="multi_label")) as account:
        yield account


async def asked(account: Account, replay: Replay, *replies: Reply, text: str = "I was charged twice.") -> Outcome:
    """What comes of a document when these are the replies."""
    replay.answer(*replies)
    (outcome,) = await endpoint(account).classify([document(text)])
    return outcome


def endpoint(account: Account) -> Comprehend:
    assert isinstance(account.provider, Comprehend)
    return account.provider


# The documented examples


def exchanges(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CONTRACT / f"{name}.json").read_text("utf-8"))["exchanges"]
    return found


def replies(name: str) -> list[Reply]:
    found = [each["response"] for each in exchanges(name)]
    return [Reply(each["status"], json.dumps(each["body"]).encode(), each["headers"]) for each in found]


@pytest.mark.parametrize("name", ["classify_multi_class", "classify_multi_label", "refusals", "describe_endpoint"])
async def test_the_requests_are_those_documented(name: str, single: Account, multi: Account, replay: Replay) -> None:
    provider = endpoint(multi if "label" in name else single)
    replay.answer(*replies(name))
    for each in exchanges(name):
        request = each["request"]
        with suppress(CallFailed):
            if request["headers"]["X-Amz-Target"].endswith("ClassifyDocument"):
                await provider.classify([document(request["body"]["Text"])])
            else:
                await provider.probe()
        received = replay.requests[-1]
        assert (received.method, received.path, received.query) == ("POST", "/", "")
        assert {header: received.headers[header.lower()] for header in request["headers"]} == request["headers"]
        assert received.json == request["body"]
    assert len(replay.requests) == len(exchanges(name))


async def test_a_multi_class_answer_gives_its_classes(single: Account, replay: Replay) -> None:
    scores = (ClassScore("billing", 0.9856781363487244), ClassScore("refund", 0.0131), ClassScore("delivery", 0.0006))
    assert await asked(single, replay, *replies("classify_multi_class")) == Classified(scores, units=0)


async def test_a_multi_label_answer_gives_its_labels_best_first(multi: Account, replay: Replay) -> None:
    scores = (ClassScore("complaint", 0.91), ClassScore("billing", 0.8642))
    assert await asked(multi, replay, *replies("classify_multi_label")) == Classified(scores)


REFUSALS: list[tuple[type[CallFailed] | Reason, str]] = [
    (Reason.TOO_LONG, "TextSizeLimitExceededException"),
    (Reason.REFUSED_BY_CLASSIFIER, "^DOCUMENT_SIZE_EXCEEDED in INVALID_DOCUMENT in InvalidRequestException$"),
    (Misconfigured, r"InvalidRequestException \(INVALID_DOCUMENT, TEXTRACT_ACCESS_DENIED\): check endpoint_arn"),
    (Unavailable, "400 ResourceUnavailableException: the endpoint does not serve just now"),
    (Throttled, "400 ThrottlingException"),
    (Throttled, "400 TooManyRequestsException"),
    (Unavailable, "500 InternalServerException"),
    (Misconfigured, "UnrecognizedClientException: check access_key_id and secret_access_key, or the role"),
    (Misconfigured, "InvalidSignatureException: check .*secret_access_key.*, and this machine's clock"),
    (Misconfigured, "ExpiredTokenException: check access_key_id.*expired"),
    (Misconfigured, "AccessDeniedException: see that the credentials allow comprehend:ClassifyDocument"),
]


async def test_documented_refusals_are_named_by_what_to_do_next(single: Account, replay: Replay) -> None:
    for reply, (kind, words) in zip(replies("refusals"), REFUSALS, strict=True):
        await assert_told(kind, words, single, replay, reply)
    assert len(replay.requests) == len(REFUSALS), "the SDK has asked again by itself"


async def assert_told(
    kind: type[CallFailed] | Reason, words: str, account: Account, replay: Replay, reply: Reply
) -> None:
    if isinstance(kind, Reason):
        outcome = await asked(account, replay, reply)
        assert isinstance(outcome, Refused)
        assert outcome.reason is kind
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(outcome.message)
    else:
        with pytest.raises(kind, match=words) as caught:
            await asked(account, replay, reply)
        assert type(caught.value) is kind


async def test_the_endpoint_is_looked_at_before_anything_is_asked(single: Account, replay: Replay) -> None:
    replay.answer(*replies("describe_endpoint"))
    provider = endpoint(single)
    with pytest.raises(Unavailable, match="still being created"):
        await provider.probe()
    await provider.probe()
    await provider.probe()
    with pytest.raises(Misconfigured, match="document-classifier-endpoint/tickets is FAILED: check endpoint_arn"):
        await provider.probe()
    with pytest.raises(Misconfigured, match="ResourceNotFoundException: check endpoint_arn"):
        await provider.probe()


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (well(), Unavailable, "no endpoint"),
        (no("AccessDeniedException"), Misconfigured, "allow comprehend:DescribeEndpoint"),
        (no("ThrottlingException"), Throttled, "ThrottlingException"),
        (no("ValidationException"), Misconfigured, "check endpoint_arn"),
        (no("InvalidRequestException"), Misconfigured, "check endpoint_arn"),
    ],
)
async def test_a_look_that_fails_says_what_to_do_next(
    reply: Reply, kind: type[CallFailed], words: str, single: Account, replay: Replay
) -> None:
    replay.answer(reply)
    with pytest.raises(kind, match=words):
        await endpoint(single).probe()


# Answers


@pytest.mark.parametrize("code", ["ThrottlingException", "TooManyRequestsException"])
@pytest.mark.parametrize("status", [400, 429])
async def test_a_throttle_has_two_names_and_two_statuses(
    code: str, status: int, single: Account, replay: Replay
) -> None:
    with pytest.raises(Throttled) as caught:
        await asked(single, replay, own(no(code, status), {"Retry-After": "7"}))
    assert caught.value.retry_after == 7
    assert len(replay.requests) == 1


async def test_a_wait_may_be_given_as_a_date(single: Account, replay: Replay) -> None:
    until, sent = "Sat, 21 Nov 2026 09:01:30 GMT", "Sat, 21 Nov 2026 09:00:00 GMT"
    with pytest.raises(Throttled) as caught:
        await asked(single, replay, own(no("ThrottlingException"), {"Retry-After": until, "Date": sent}))
    assert caught.value.retry_after == 90


@pytest.mark.parametrize("wait", ["soon", "-1", "inf", "nan"])
async def test_a_wait_that_is_none_is_not_believed(wait: str, single: Account, replay: Replay) -> None:
    with pytest.raises(Throttled) as caught:
        await asked(single, replay, own(no("ThrottlingException"), {"Retry-After": wait}))
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (HTML, Unavailable, "answered 500$"),
        (Reply(503), Unavailable, "answered 503$"),
        (Reply(429, b"slow down"), Throttled, "429"),
        (Reply(400, HTML.body, HTML.headers), Unavailable, "not in the service's words"),
        (Reply(302, headers={"Location": "http://127.0.0.1:1/"}), Unavailable, "302: not in the service's words"),
        (Reply(403, HTML.body, HTML.headers), Misconfigured, "403"),
        (Reply(404, HTML.body, HTML.headers), Misconfigured, "404: check endpoint_url"),
        (no("com.amazonaws.comprehend#ResourceUnavailableException"), Unavailable, "ResourceUnavailableException"),
        (no("ResourceNotFoundException"), Misconfigured, "check endpoint_arn"),
        (no("UnknownOperationException", 404), Misconfigured, "check endpoint_url"),
        (no("SerializationException"), Rejected, "SerializationException"),
        (no("InvalidRequestException"), Reason.REFUSED_BY_CLASSIFIER, "^InvalidRequestException$"),
        (Reply(200), Unavailable, "neither classes nor errors"),
        (well(), Unavailable, "neither classes nor errors"),
        (Reply(200, b'{"Classes": [{"Name": "bil'), Unavailable, "neither classes nor errors"),
        (Reply(200, HTML.body, HTML.headers), Unavailable, "neither classes nor errors"),
        (Reply(200, b"[1]"), Unavailable, "cannot be read"),
        (Reply(200, b"\xff\xfe"), Unavailable, "cannot be read"),
        (Reply(200, b'{"a":' * 5_000), Unavailable, "cannot be read"),
        (well(Classes=5), Unavailable, "cannot be read"),
        (well(Classes=[5]), Unavailable, "cannot be read|classes that are none"),
        (well(Classes=[{"Name": "billing"}]), Unavailable, "classes that are none"),
        (well(Classes=[{"Name": "", "Score": 0.9}]), Unavailable, "classes that are none"),
        (well(Classes=[{"Name": "billing", "Score": 1.5}]), Unavailable, "classes that are none"),
        (well(Classes=[{"Name": "billing", "Score": "high"}]), Unavailable, "classes that are none|cannot be read"),
        (well(Labels=[{"Name": "billing", "Score": 0.9}]), Misconfigured, "not trained for single_label: check task"),
        (well(Classes=[]), Reason.REFUSED_BY_CLASSIFIER, "it has no class"),
        (well(Errors=[{"Page": 1, "ErrorCode": "PAGE_SIZE_EXCEEDED"}]), Reason.REFUSED_BY_CLASSIFIER, "^PAGE_SIZE_EX"),
        (well(Classes=[], Errors=[{"ErrorCode": "TEXTRACT_BAD_PAGE"}]), Reason.REFUSED_BY_CLASSIFIER, "^TEXTRACT_BAD"),
        (well(Errors=[{"Page": 1, "ErrorCode": "INTERNAL_SERVER_ERROR"}]), Unavailable, "INTERNAL_SERVER_ERROR"),
    ],
)
async def test_every_answer_has_one_meaning(
    reply: Reply, kind: type[CallFailed] | Reason, words: str, single: Account, replay: Replay
) -> None:
    await assert_told(kind, words, single, replay, reply)


async def test_labels_may_be_none_and_a_task_may_be_wrong(multi: Account, replay: Replay) -> None:
    assert await asked(multi, replay, well(Labels=[])) == Classified(())
    with pytest.raises(Misconfigured, match="check task"):
        await asked(multi, replay, BILLING)


async def test_warnings_and_classes_beside_errors_are_kept(single: Account, replay: Replay) -> None:
    warning = {"Page": 1, "WarnCode": "INFERENCING_PLAINTEXT_WITH_NATIVE_TRAINED_MODEL", "WarnMessage": "Retrain it."}
    reply = well(
        Classes=[{"Name": "billing", "Score": 1, "Page": 1}],
        Warnings=[warning, warning],
        Errors=[{"Page": 2, "ErrorCode": "INTERNAL_SERVER_ERROR"}],
        DocumentMetadata={"Pages": 2},
        SomethingNew=None,
    )
    expected = Classified((ClassScore("billing", 1.0),), warnings=("INFERENCING_PLAINTEXT_WITH_NATIVE_TRAINED_MODEL",))
    assert await asked(single, replay, reply) == expected


@given(st.dictionaries(st.sampled_from(WORDS[:4]), ANYTHING))
async def test_whatever_an_answer_holds_it_means_something(single: Account, answer: dict[str, Any]) -> None:
    with suppress(Unavailable, Misconfigured):
        assert isinstance(endpoint(single)._outcome(answer), Classified | Refused)


# Documents


@pytest.mark.parametrize(("text", "size"), [("a" * 10_001, 10_001), ("é" * 5_001, 10_002), ("🙂" * 2_501, 10_004)])
async def test_a_document_is_measured_in_bytes_and_refused_unasked(
    text: str, size: int, single: Account, replay: Replay
) -> None:
    outcome = await asked(single, replay, text=text)
    assert outcome == Refused(Reason.TOO_LONG, f"{size:,} bytes in UTF-8, and 10,000 are the most")
    assert not replay.requests


@pytest.mark.parametrize("text", ["a" * 10_000, "é" * 5_000, "🙂" * 2_500, "two\r\nlines \u2028 \u0000"])
async def test_a_document_that_fits_goes_as_it_is(text: str, single: Account, replay: Replay) -> None:
    assert isinstance(await asked(single, replay, BILLING, text=text), Classified)
    assert replay.requests[0].json == {"EndpointArn": ENDPOINT_ARN, "Text": text}


async def test_half_an_emoji_is_replaced(single: Account, replay: Replay) -> None:
    await asked(single, replay, BILLING, text="cut here: \ud83d")
    assert replay.requests[0].json == {"EndpointArn": ENDPOINT_ARN, "Text": "cut here: \ufffd"}


async def test_the_guides_spelling_of_an_endpoint_is_sent_as_the_api_knows_it(replay: Replay) -> None:
    arn = ENDPOINT_ARN.replace("document-classifier-endpoint", "endpoint")
    async with opened(branch(replay.url, endpoint_arn=arn)) as account:
        await asked(account, replay, BILLING)
        assert account.provider.model == "document-classifier-endpoint/tickets"
    assert {request.json["EndpointArn"] for request in replay.requests if isinstance(request.json, dict)} == {
        ENDPOINT_ARN
    }


async def test_a_thousand_documents_go_through_the_pipeline(single: Account, replay: Replay) -> None:
    replay.answer(*[BILLING] * 300, no("ThrottlingException"), *[BILLING] * 200, HTML, *[BILLING] * 499)
    replay.answer(no("TextSizeLimitExceededException"), BILLING)
    sink = await streamed(single, [f"ticket {i}" for i in range(1_000)] + ["é" * 6_000, "last"])
    results = [json.loads(message.value or b"") for message in sink.to("out")]
    assert len(results) == 1_000
    assert {result["best"]["name"] for result in results} == {"billing"}
    reasons = [dict(message.headers)["labelstream-error-type"] for message in sink.to("dead")]
    assert reasons == [b"too_long", b"too_long"]


# Who asks, and how


async def test_requests_are_signed_for_the_region_of_the_arn_by_a_client_that_names_itself(
    single: Account, replay: Replay
) -> None:
    await asked(single, replay, BILLING)
    headers = replay.requests[0].headers
    assert headers["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/")
    assert "/eu-west-1/comprehend/aws4_request" in headers["authorization"]
    assert headers["user-agent"].startswith("labelstream/")


async def test_credentials_come_from_the_environment_where_none_are_set(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDFROMENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    async with opened(branch(replay.url, access_key_id=None, secret_access_key=None)) as account:
        await asked(account, replay, BILLING)
    assert "Credential=AKIDFROMENVIRONMENT/" in replay.requests[-1].headers["authorization"]
    assert replay.requests[-1].headers["x-amz-security-token"] == "a-token"


async def test_no_credentials_at_all_are_a_setting_to_make(replay: Replay) -> None:
    async with opened(branch(replay.url, access_key_id=None, secret_access_key=None)) as account:
        with pytest.raises(Misconfigured, match="no AWS credentials were found: set access_key_id"):
            await endpoint(account).probe()
    assert not replay.requests


async def test_a_profile_that_does_not_exist_is_told_with_the_account(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(Misconfigured, match=r"accounts\.aws: .*ProfileNotFound"):
        async with opened(branch(replay.url, access_key_id=None, secret_access_key=None)):
            pass


async def test_the_secret_may_be_in_a_file(replay: Replay, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET_KEY + "\n")
    from_file = branch(replay.url, secret_access_key=None, secret_access_key_file=tmp_path / "secret")
    async with opened(from_file) as account:
        assert isinstance(await asked(account, replay, BILLING), Classified)


async def test_opening_warms_up_and_survives_whatever_that_meets(replay: Replay) -> None:
    replay.answer(no("ThrottlingException"))
    async with opened(branch(replay.url)) as account:
        assert [request.headers["x-amz-target"] for request in replay.requests] == [
            "Comprehend_20171127.DescribeEndpoint"
        ]
        assert isinstance(await asked(account, replay, BILLING), Classified)


async def test_every_request_is_paced_and_counted(replay: Replay) -> None:
    telemetry = Telemetry()
    limits = settings.Limits(requests_per_second=5)
    async with opened(branch(replay.url, limits=limits), telemetry) as account:
        replay.answer(well(EndpointProperties={"Status": "IN_SERVICE"}), BILLING, no("ThrottlingException"), HTML)
        began = asyncio.get_running_loop().time()
        await endpoint(account).probe()
        for _ in range(3):
            with suppress(CallFailed):
                await endpoint(account).classify([document()])
        assert asyncio.get_running_loop().time() - began >= 0.5  # three waits of 0.2 s, but for some slack
    counted = {
        (sample.labels["operation"], sample.labels["outcome"]): sample.value
        for metric in telemetry.registry.collect()
        for sample in metric.samples
        if sample.name == "labelstream_provider_request_duration_seconds_count"
    }
    assert counted == {
        ("describe_endpoint", "5xx"): 1,  # the warm-up, which nobody answered
        ("describe_endpoint", "2xx"): 1,
        ("classify_document", "2xx"): 1,
        ("classify_document", "4xx"): 1,
        ("classify_document", "5xx"): 1,
    }
    names = {"account": "aws", "provider": "comprehend", "operation": "classify_document"}
    for kind in ("throttled", "http_5xx"):
        labels = {**names, "error_type": kind}
        assert telemetry.registry.get_sample_value("labelstream_provider_errors_total", labels) == 1


# Networks that fail


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "broke its answer off"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "broke its answer off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", "broke its answer off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{", "broke its answer off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "broke its answer off"),
        (b"HTTP/1.1 500 No\r\nx-a: \xff\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", "cannot be read"),
    ],
)
async def test_an_answer_that_is_not_http_is_an_outage(sent: bytes, words: str) -> None:
    async with listening(saying(sent)) as host, opened(branch(f"http://{host}")) as account:
        with pytest.raises(Unavailable, match=f"{host} did not answer: .*{words}"):
            await endpoint(account).classify([document()])


async def test_a_closed_port_is_an_outage_at_once() -> None:
    async with listening(saying(b"")) as host:
        pass
    async with opened(branch(f"http://{host}")) as account:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match=f"{host} did not answer: it cannot be reached"):
            await endpoint(account).classify([document()])
        assert asyncio.get_running_loop().time() - began < 2, "the SDK has asked again by itself"


async def test_a_name_that_does_not_exist_is_an_outage() -> None:
    async with opened(branch("https://nowhere.invalid")) as account:
        with pytest.raises(Unavailable, match=r"nowhere\.invalid did not answer: it cannot be reached"):
            await endpoint(account).classify([document()])


async def test_a_certificate_that_nobody_vouches_for_is_named() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1", "localhost").configure_cert(tls)
    async with listening(saying(b""), tls) as host, opened(branch(f"https://{host}")) as account:
        with pytest.raises(Unavailable, match=r"TLS could not be agreed on \(.*issuer"):
            await endpoint(account).classify([document()])


async def test_a_connection_that_is_reset_is_an_outage() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    async with listening(reset) as host, opened(branch(f"http://{host}")) as account:
        with pytest.raises(Unavailable, match="did not answer"):
            await endpoint(account).classify([document()])


async def test_silence_and_a_dripping_answer_end_with_the_timeout() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"DescribeEndpoint" in await reader.read(65_536):
            writer.write(b"HTTP/1.1 503 Later\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    for speak in (drip, listen):
        async with listening(speak) as host, opened(branch(f"http://{host}", request_timeout=0.1)) as account:
            with pytest.raises(Unavailable, match=r"did not answer: it took too long$"):
                await endpoint(account).classify([document()])


async def test_calls_that_are_cancelled_leave_a_client_that_works(single: Account, replay: Replay) -> None:
    replay.answer(*[BILLING] * 21)
    calls = [asyncio.create_task(endpoint(single).classify([document()])) for _ in range(20)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    (outcome,) = await endpoint(single).classify([document()])
    replay.replies.clear()
    assert isinstance(outcome, Classified)


async def test_a_redirect_is_not_followed(single: Account, replay: Replay) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65_536))

    async with listening(listen) as other:
        for status in (301, 302, 307, 308):
            with pytest.raises(Unavailable):
                await asked(single, replay, Reply(status, headers={"Location": f"http://{other}/"}))
    assert not heard


# What must be seen nowhere

TEXT = "my password is tr0ub4dor"


@pytest.mark.parametrize(
    "reply",
    [
        no("InvalidRequestException", message=TEXT, Reason=TEXT, Detail={"Reason": TEXT}),
        no("InvalidRequestException", message=SECRET_KEY, Reason="INVALID_DOCUMENT"),
        no("AccessDeniedException", 403, f"{SECRET_KEY} may not read {TEXT}"),
        no(TEXT, message=TEXT),
        no("ThrottlingException", message=TEXT),
        no("InternalServerException", 500, TEXT),
        own(HTML, {"X-Document": TEXT}),
        Reply(200, TEXT.encode()),
        well(Classes=[{"Name": TEXT, "Score": 3}]),
        well(Errors=[{"ErrorCode": TEXT, "ErrorMessage": TEXT}]),
        well(Errors=[{"ErrorCode": "TEXTRACT_BAD_PAGE", "ErrorMessage": TEXT}]),
    ],
)
async def test_neither_the_secret_nor_a_text_is_seen_anywhere(
    reply: Reply, single: Account, replay: Replay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "service")
    caplog.set_level(logging.WARNING)  # as `logs.configure` has it for libraries
    seen = [repr(endpoint(single)), repr(endpoint(single)._client), repr(branch(replay.url))]
    try:
        seen.append(repr(await asked(single, replay, reply, text=TEXT)))
    except CallFailed as error:
        seen += [repr(error), *traceback.format_exception(error)]
    assert "tr0ub4dor" not in "".join([*seen, caplog.text])
    assert SECRET_KEY not in "".join([*seen, caplog.text])


async def test_what_it_is_can_be_seen(single: Account, replay: Replay) -> None:
    host = replay.host
    assert repr(single.provider) == f"Comprehend('{host}', 'document-classifier-endpoint/tickets', 'single_label')"
    assert (single.kind, single.provider.task) == ("comprehend", "single_label")
    assert single.provider.documents_per_call == 1
    assert single.takes("x" * 10_000)
    assert not single.takes("x" * 10_001)
    assert single.takes("ä" * 5_000)
    assert not single.takes("ä" * 5_001)


# Settings


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"endpoint_arn": "tickets"}, "is not of the form arn:aws:comprehend:REGION:ACCOUNT:document-classifier-endp"),
        ({"endpoint_arn": ENDPOINT_ARN + "/x"}, "is not of the form"),
        ({"endpoint_arn": ENDPOINT_ARN.replace("endpoint/tickets", "/tickets")}, "is not of the form"),
        ({"access_key_id": None}, "secret_access_key is given, but no access_key_id"),
        ({"secret_access_key": None}, "give either secret_access_key or secret_access_key_file"),
        ({"endpoint_url": "http://comprehend.example"}, "endpoint_url would send documents unencrypted"),
        ({"endpoint_url": "comprehend.example"}, "endpoint_url is not a URL"),
        ({"endpoint_url": "https://me:secret@comprehend.example"}, "endpoint_url holds more than a host and a path"),
        ({"regoin": "eu-west-1"}, "unknown key 'regoin'"),
    ],
)
async def test_a_setting_that_is_wrong_is_named(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        branch(**changes)
    assert SECRET_KEY not in str(caught.value)


async def test_plain_http_may_be_allowed_and_an_aws_owned_endpoint_asked() -> None:
    arn = ENDPOINT_ARN.replace("111122223333", "aws")
    assert branch("http://comprehend.example", plaintext=True, endpoint_arn=arn).region == "eu-west-1"


async def test_settings_are_read_from_a_tree() -> None:
    streams = [{"name": "t", "input": "a", "classify_with": "aws", "output": "b", "dead_letter": "c"}]
    kafka = {"bootstrap_servers": "127.0.0.1:9092", "group_id": "g"}
    account = {"provider": "comprehend", "endpoint_arn": ENDPOINT_ARN, "task": "multi_label"}
    tree = {"kafka": kafka, "streams": streams, "accounts": {"aws": account}}
    read = settings.parse(tree).accounts["aws"]
    assert isinstance(read, settings.Comprehend)
    assert (read.secret, read.endpoint_url, read.region) == (None, None, "eu-west-1")
