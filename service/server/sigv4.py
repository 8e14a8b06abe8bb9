"""Signatures of AWS requests (Signature Version 4), checked.

The canonical request is made anew from what came, signed with the secret of the key that it names, and compared in
constant time. Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

SKEW = 15 * 60.0
"""Seconds that the clocks of client and server may differ."""

_FORM = re.compile(
    rb"AWS4-HMAC-SHA256 Credential=([^/, ]+)/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request, ?"
    rb"SignedHeaders=([a-z0-9;_-]+), ?Signature=([0-9a-f]{64})"
)


class Unsigned(Exception):
    """A request is not let in: `code` is AWS's own for the reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def region(headers: Mapping[bytes, bytes]) -> str:
    """The region that a request was signed for, whether rightly or not; one of AWS's own where it says none."""
    found = _FORM.fullmatch(headers.get(b"authorization", b""))
    return found[3].decode() if found else "us-east-1"


def check(
    secrets: Mapping[str, str],
    *,
    service: str,
    method: str,
    path: bytes,
    query: bytes,
    headers: Mapping[bytes, bytes],
    body: bytes,
    now: float,
) -> None:
    """See that a request is signed by one of the keys, whose secrets are given; raises `Unsigned`.

    `path` is as it was sent; `headers` have names in lower case.
    """
    given = headers.get(b"authorization")
    if given is None:
        raise Unsigned("MissingAuthenticationTokenException", "Request is missing Authentication Token")
    found = _FORM.fullmatch(given)
    if found is None:
        raise Unsigned("IncompleteSignatureException", "The Authorization header is not that of a signed request.")
    key, day, where, of, signed, signature = (part.decode("ascii", "replace") for part in found.groups())
    if key not in secrets:
        raise Unsigned("UnrecognizedClientException", "The security token included in the request is invalid.")
    names = signed.split(";")
    moment = headers.get(b"x-amz-date", b"").decode("ascii", "replace")
    if "host" not in names or "x-amz-date" not in names or not moment.startswith(day):
        raise Unsigned("IncompleteSignatureException", "host and x-amz-date have to be signed.")
    if any(name.startswith(b"x-amz-") and name.decode("latin-1") not in names for name in headers):
        raise Unsigned("InvalidSignatureException", "There is an x-amz header that is not signed.")
    if of != service:
        raise Unsigned("InvalidSignatureException", f"Credential should be scoped to correct service: {service!r}.")
    _check_time(moment, now)
    canonical = "\n".join(
        [
            method,
            _canonical_path(path),
            _canonical_query(query),
            *(f"{name}:{_header(headers, name)}" for name in names),
            "",
            signed,
            sha256(body).hexdigest(),
        ]
    )
    scope = f"{day}/{where}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    derived = f"AWS4{secrets[key]}".encode()
    for part in (day, where, service, "aws4_request"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(derived, to_sign.encode(), "sha256").hex(), signature):
        raise Unsigned("InvalidSignatureException", "The request signature we calculated does not match the signature.")


def _check_time(moment: str, now: float) -> None:
    try:
        sent = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Unsigned("IncompleteSignatureException", "x-amz-date is not a time.") from None
    if abs(sent - now) > SKEW:
        raise Unsigned("InvalidSignatureException", "Signature expired: the time is too far from the server's.")


def _canonical_path(path: bytes) -> str:
    """Without dots and empty steps, and encoded once more than it was sent."""
    steps: list[bytes] = []
    for step in path.split(b"/"):
        if step == b"..":
            del steps[-1:]
        elif step not in {b"", b"."}:
            steps.append(step)
    last = b"/" if steps and path.endswith(b"/") else b""
    return quote(b"/" + b"/".join(steps) + last, safe="/~")


def _canonical_query(query: bytes) -> str:
    if not query:
        return ""
    pairs = (pair.partition("=") for pair in query.decode("latin-1").split("&"))
    return "&".join(f"{name}={value}" for name, value in sorted((name, value) for name, _, value in pairs))


def _header(headers: Mapping[bytes, bytes], name: str) -> str:
    return " ".join(headers.get(name.encode(), b"").decode("latin-1").split())
