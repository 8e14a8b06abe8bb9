"""Amazon Comprehend, what requests say and what they may: the forms, lengths and values of its service model.

Whatever is not of the form that it is to have is a ValidationException. Source: botocore's service model
`comprehend/2017-11-27`, which gives patterns, lengths and values, and the API Reference for the rest.
"""

import base64
import binascii
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from service.server.comprehend import Failure

ACCOUNT = "000000000000"
PAGE = 100
NAME = "[a-zA-Z0-9](?:-*[a-zA-Z0-9])*"
S3_URI = r"s3://[a-z0-9][.\-a-z0-9]{1,61}[a-z0-9](/.*)?"
CLIENT_TOKEN = "[a-zA-Z0-9-]{1,64}"  # noqa: S105 (the form of one)
MODEL_STATUSES = "SUBMITTED|TRAINING|DELETING|STOP_REQUESTED|STOPPED|IN_ERROR|TRAINED|TRAINED_WITH_WARNING"
ENDPOINT_STATUSES = "CREATING|DELETING|FAILED|IN_SERVICE|UPDATING"
JOB_STATUSES = "SUBMITTED|IN_PROGRESS|COMPLETED|FAILED|STOP_REQUESTED|STOPPED"
MOST_TAGS = 50
_ROLE = r"arn:aws(?:-[^:]+)?:iam::[0-9]{12}:role/.+"
_POLICY = r"[\t\n\r -\u00ff]+"
_KEY = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}"
_KMS = re.compile(
    rf"(?:{_KEY})|alias/[a-zA-Z0-9/_-]+|arn:aws(?:-[^:]+)?:kms:[a-zA-Z0-9-]+:[0-9]{{12}}:"
    rf"(?:key/(?:{_KEY})|alias/[a-zA-Z0-9/_-]+)"
)

T = TypeVar("T")


def invalid(message: str) -> Failure:
    """A parameter of the wrong type or form."""
    return Failure("ValidationException", message)


def senseless(message: str) -> Failure:
    """Parameters that are well formed, and cannot be followed."""
    return Failure("InvalidRequestException", message)


def text(given: Mapping[str, Any], name: str, form: str = r".+", most: int = 2048, least: int = 0) -> str | None:
    """A string, if it is there; raises `Failure`."""
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not least <= len(value) <= most or not re.fullmatch(form, value, re.DOTALL):
        raise invalid(f"{name} does not have the form that it is to have.")
    return value


def words(given: Mapping[str, Any], name: str, most: int) -> str | None:
    """A string of letters, digits, spaces and some signs, if it is there; raises `Failure`."""
    value = text(given, name, most=most)
    if value and not all(unicodedata.category(sign)[0] in "LZN" or sign in "_.:/=+-%@" for sign in value):
        raise invalid(f"{name} holds a sign that it may not.")
    return value


def needed(value: T | None, name: str) -> T:
    """A parameter that has to be there; raises `Failure`."""
    if value is None:
        raise invalid(f"{name} is missing.")
    return value


def number(given: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """A whole number, if it is there; raises `Failure`."""
    value = given.get(name)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise invalid(f"{name} is to be a whole number from {least} to {most}.")
    return value


def branch(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A structure, empty if it is not there; raises `Failure`."""
    value = given.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"{name} is to be a structure.")
    return value


def texts(given: Mapping[str, Any], name: str, form: str, least: int, most: int) -> Sequence[str] | None:
    """A list of so many strings, if it is there; raises `Failure`."""
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise invalid(f"{name} is to be a list of {least} to {most}.")
    return [needed(text({name: each}, name, form), name) for each in value]


def role(given: Mapping[str, Any], name: str = "DataAccessRoleArn") -> str | None:
    """The ARN of a role, if it is there; raises `Failure`."""
    return text(given, name, _ROLE, 2048, 20)


def no_flywheel(given: Mapping[str, Any]) -> None:
    """Refuse what is asked of a flywheel; raises `Failure`."""
    if text(given, "FlywheelArn", rf"arn:aws(?:-[^:]+)?:comprehend:[a-zA-Z0-9-]*:[0-9]{{12}}:flywheel/{NAME}", 256):
        raise senseless("There are no flywheels here.")


def encryption(given: Mapping[str, Any], *names: str) -> None:
    """See that keys of KMS are named as such; raises `Failure`."""
    for name in names:
        key = text(given, name, r"[\x00-\x7f]+")
        if key is not None and not _KMS.fullmatch(key):
            raise Failure("KmsKeyValidationException", f"{name} is neither the id nor the ARN nor the alias of a key.")


def surroundings(given: Mapping[str, Any]) -> None:
    """See that network and policy have their forms; raises `Failure`."""
    if vpc := branch(given, "VpcConfig"):
        needed(texts(vpc, "SecurityGroupIds", "[-0-9a-zA-Z]{1,32}", 1, 5), "VpcConfig.SecurityGroupIds")
        needed(texts(vpc, "Subnets", "[-0-9a-zA-Z]{1,32}", 1, 16), "VpcConfig.Subnets")
    text(given, "ModelPolicy", _POLICY, 20_000)


def reader(given: Mapping[str, Any]) -> None:
    """See that a `DocumentReaderConfig` is one; raises `Failure`."""
    if not (config := branch(given, "DocumentReaderConfig")):
        return
    actions = "TEXTRACT_DETECT_DOCUMENT_TEXT|TEXTRACT_ANALYZE_DOCUMENT"
    action = needed(text(config, "DocumentReadAction", actions), "DocumentReaderConfig.DocumentReadAction")
    text(config, "DocumentReadMode", "SERVICE_DEFAULT|FORCE_DOCUMENT_READ_ACTION")
    features = texts(config, "FeatureTypes", "TABLES|FORMS", 1, 2)
    if action == "TEXTRACT_ANALYZE_DOCUMENT" and features is None:
        raise senseless("TEXTRACT_ANALYZE_DOCUMENT takes FeatureTypes.")


def tags(given: Mapping[str, Any]) -> dict[str, str] | None:
    """The tags of a request, if it has any, by their keys; raises `Failure`."""
    value = given.get("Tags")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise invalid("Tags is to be a list of structures.")
    if len(value) > MOST_TAGS:
        raise Failure("TooManyTagsException", f"A resource may have {MOST_TAGS} tags.")
    pairs = [(needed(text(each, "Key", most=128), "Tags.Key"), text(each, "Value", ".*", 256) or "") for each in value]
    if len(found := dict(pairs)) < len(pairs):
        raise senseless("A key of Tags is there twice.")
    return found


def arn(region: str, kind: str, name: str) -> str:
    """The ARN of a resource of ours."""
    return f"arn:aws:comprehend:{region}:{ACCOUNT}:{kind}/{name}"


def named(
    given: Mapping[str, Any], parameter: str, kind: str, form: str, account: str = "[0-9]{12}"
) -> tuple[str, str] | None:
    """Kind and name in an ARN, if it is there; raises `Failure`."""
    value = text(given, parameter, most=256)
    if value is None:
        return None
    found = re.fullmatch(rf"arn:aws(?:-[^:]+)?:comprehend:[a-zA-Z0-9-]*:(?:{account}):({kind})/({form})", value)
    if found is None:
        raise invalid(f"{parameter} is not the ARN of what it is to be.")
    return found[1], found[2]


def filtered(
    given: Mapping[str, Any], forms: Mapping[str, str], time: str, refusal: str = "InvalidFilterException"
) -> Mapping[str, Any]:
    """The one filter of a list, by its name, or none; `forms` has those that are strings. Raises `Failure`."""
    wanted = branch(given, "Filter")
    found: dict[str, Any] = {name: text(wanted, name, form) for name, form in forms.items()}
    for name in (f"{time}Before", f"{time}After"):
        found[name] = moment = wanted.get(name)
        if not (moment is None or type(moment) in {int, float}):
            raise invalid(f"{name} is to be a time.")
    found = {name: value for name, value in found.items() if value is not None}
    if len(found) > 1:
        raise Failure(refusal, f"Only one filter can be set at a time, and these are {', '.join(found)}.")
    return found


def in_time(found: Sequence[dict[str, Any]], wanted: Mapping[str, Any], time: str) -> list[dict[str, Any]]:
    """What was made in the time that a filter leaves: before a moment the oldest first, after one the newest."""
    before, after = wanted.get(f"{time}Before", math.inf), wanted.get(f"{time}After", -math.inf)
    left = [one for one in found if after < one[time] < before]
    if f"{time}Before" in wanted or f"{time}After" in wanted:
        left.sort(key=lambda one: float(one[time]), reverse=f"{time}After" in wanted)
    return left


def page(given: Mapping[str, Any], found: Sequence[T]) -> tuple[Sequence[T], dict[str, str]]:
    """The part of a list that is asked for, and the token for what follows, if anything does; raises `Failure`."""
    most = number(given, "MaxResults", 1, 500) or PAGE
    begin = 0
    if (token := text(given, "NextToken")) is not None:
        try:
            begin = int(base64.urlsafe_b64decode(token))
        except (binascii.Error, ValueError):
            raise invalid("NextToken is none of ours.") from None
    end = begin + most
    after = {"NextToken": base64.urlsafe_b64encode(b"%d" % end).decode()} if end < len(found) else {}
    return found[max(0, begin) : end], after
