from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from service.server import sigv4
from service.server.sigv4 import Unsigned

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def signed(
    body: bytes = b"{}", path: str = "/", query: str = "", token: str | None = None, **more: str
) -> dict[str, Any]:
    """A request as botocore signs it."""
    url = f"http://127.0.0.1:8080{path}{'?' + query if query else ''}"
    headers = {"Host": "127.0.0.1:8080", "X-Amz-Target": "Comprehend_20171127.ClassifyDocument", **more}
    request = AWSRequest("POST", url, data=body, headers=headers)
    SigV4Auth(Credentials(KEY, SECRET, token), "comprehend", "eu-west-1").add_auth(request)
    return {
        "method": "POST",
        "path": path.encode(),
        "service": "comprehend",
        "query": query.encode(),
        "headers": {name.lower().encode(): value.encode() for name, value in request.headers.items()},
        "body": body,
        "now": datetime.now(UTC).timestamp(),
    }


def check(request: dict[str, Any]) -> None:
    sigv4.check({KEY: SECRET, "OTHER": "other"}, **request)


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize("query", ["", "b=2&a=1", "a=%20x&a=&c", "a=1+2&a=1&A=%2F", "a=1&&=b"])
@pytest.mark.parametrize("path", ["/", "/v/comp", "/v/comp/", "/a%20b/%C3%A4", "//v/./x/../comp", "/a+b:c/*~"])
def test_what_botocore_signs_is_let_in(token: str | None, query: str, path: str) -> None:
    check(signed(path=path, query=query, token=token))


@given(st.binary(max_size=50), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20))
def test_whatever_is_signed_is_let_in(body: bytes, header: str) -> None:
    check(signed(body, **{"X-Amz-Meta": header}))


def test_the_region_is_that_of_the_signature() -> None:
    assert sigv4.region(signed()["headers"]) == "eu-west-1"
    assert sigv4.region({}) == "us-east-1"


CHANGES: list[tuple[str, Any, str]] = [
    ("body", b"{ }", "InvalidSignatureException"),
    ("path", b"/elsewhere", "InvalidSignatureException"),
    ("query", b"a=1", "InvalidSignatureException"),
    ("method", "GET", "InvalidSignatureException"),
    ("service", "s3", "InvalidSignatureException"),
    ("x-amz-more", b"not signed", "InvalidSignatureException"),
    ("now", 3600, "InvalidSignatureException"),
    ("now", -3600, "InvalidSignatureException"),
    ("host", b"elsewhere", "InvalidSignatureException"),
    ("x-amz-target", b"Comprehend_20171127.DeleteEndpoint", "InvalidSignatureException"),
    ("x-amz-date", b"20000101T000000Z", "IncompleteSignatureException"),
    ("x-amz-date", None, "IncompleteSignatureException"),
    ("authorization", None, "MissingAuthenticationTokenException"),
    ("authorization", b"Basic abc", "IncompleteSignatureException"),
]


@pytest.mark.parametrize(("what", "value", "code"), CHANGES)
def test_what_is_changed_on_the_way_is_not(what: str, value: Any, code: str) -> None:
    request = signed()
    if what == "now":
        request["now"] += value
    elif what in request:
        request[what] = value
    elif value is None:
        del request["headers"][what.encode()]
    else:
        request["headers"][what.encode()] = value
    with pytest.raises(Unsigned) as refused:
        check(request)
    assert refused.value.code == code
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(("secrets", "code"), [({}, "UnrecognizedClient"), ({KEY: "wrong"}, "InvalidSignature")])
def test_an_unknown_key_and_a_wrong_secret_are_told_apart(secrets: dict[str, str], code: str) -> None:
    with pytest.raises(Unsigned) as refused:
        sigv4.check(secrets, **signed())
    assert refused.value.code == f"{code}Exception"


@given(st.binary(max_size=200))
def test_no_header_makes_it_fail(header: bytes) -> None:
    request = signed()
    request["headers"][b"authorization"] = header
    with pytest.raises(Unsigned):
        check(request)
