"""Amazon Comprehend, the account: how much it may have at once, and what it has asked for before.

Quotas are those of Amazon's Service Quotas, the newer figures where sources differ: 20 endpoints, 50 inference units
for each and 200 for all (the guide still says 10 and 100), 10 trainings and 10 classification jobs. They are for the
operator to choose (`--comprehend-quota`). What he has registered himself (`--comprehend-endpoint`) does not count.

Behaviour chosen where the service's is not documented: an eleventh job is a TooManyRequestsException, as starting one
has no other error for it; beyond the other quotas there is a ResourceLimitExceededException.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

import orjson

from service.errors import Misconfigured
from service.server.comprehend import Failure
from service.server.comprehend_requests import CLIENT_TOKEN, text


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much an account may have at once."""

    endpoints: int = 20
    units_per_endpoint: int = 50
    units: int = 200
    trainings: int = 10
    jobs: int = 10

    @classmethod
    def parse(cls, given: Iterable[str]) -> Self:
        """Quotas written NAME=NUMBER each, the others as they are; raises `Misconfigured`."""
        chosen = {}
        for one in given:
            name, _, number = one.partition("=")
            name = name.replace("-", "_")
            if name not in cls.__slots__ or not (number.isascii() and number.isdigit()):
                known = ", ".join(each.replace("_", "-") for each in cls.__slots__)
                raise Misconfigured(f"--comprehend-quota {one!r} is not NAME=NUMBER with a name of {known}")
            chosen[name] = int(number)
        return cls(**chosen)


class Account:
    """What the rooms of Comprehend share: the quotas, and the turn to change anything.

    Whoever makes, changes or removes something looks and acts inside `async with account.turn`, so what he has seen
    still holds when he acts.
    """

    def __init__(self, quotas: Quotas) -> None:
        self.quotas = quotas
        self.turn = asyncio.Lock()


def asked(given: Mapping[str, Any]) -> str:
    """A request in short, without its token: the same for the same parameters."""
    parameters = {name: value for name, value in given.items() if name != "ClientRequestToken" and value is not None}
    return sha256(orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS)).hexdigest()


def token(given: Mapping[str, Any]) -> str | None:
    """The token of a request, if it has one; raises `Failure`."""
    return text(given, "ClientRequestToken", CLIENT_TOKEN)


def made_before(made: Iterable[Mapping[str, Any]], given: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Which of the things made is that of this request's token, if any is; raises `Failure` where it is another's.

    Each has the token and the request in short that it was made for.
    """
    if (own := token(given)) is None:
        return None
    found = next((one for one in made if one["token"] == own), None)
    if found is not None and found["asked"] != asked(given):
        raise Failure("ResourceInUseException", "ClientRequestToken was used with other parameters.")
    return found
