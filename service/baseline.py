"""`labelstream baseline`: the shares of classes in results that are taken for normal. Pure, but for the file."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import orjson

from service.errors import Misconfigured

_DECIMALS = 4


def read(path: Path) -> dict[str, float]:
    """The shares of a file of results, a JSON object a line. Raises Misconfigured."""
    try:
        with path.open("rb") as lines:
            return shares(path, lines)
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}") from None


def shares(path: Path, lines: Iterable[bytes]) -> dict[str, float]:
    """The share of each best class, the largest first, without those too rare to be told. Raises Misconfigured."""
    found = Counter[str]()
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            best = orjson.loads(line)["best"]
            if best is not None:
                found[str(best["name"])] += 1
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise Misconfigured(f"{path}, line {number}: is no result: a JSON object with `best`") from None
    if not found:
        raise Misconfigured(f"{path}: has no result with a class")
    told = ((name, round(count / found.total(), _DECIMALS)) for name, count in found.most_common())
    return {name: share for name, share in told if share}
