"""Amazon Comprehend, what classifiers learn from: tables and augmented manifests on S3, and how much there may be.

A table (`COMPREHEND_CSV`) has two columns, label and text, and no header. A manifest has a JSON object a line, with
the text as `source`, and what is said of a label attribute beside it. Without test data every tenth document is set
aside for the test, up to 10,000.

Limits as documented: 1,000 classes of one label, 100 labels; names of 5,000 characters; in multi-label mode 1,000,000
documents at most and 50 at least. Of the least for each class the guide says 10, and a table of quotas 50 for
classes of one label: 10 it is. One thing is less than documented: as all of it is held in memory, what is read for a
training may have 512 MB, not 5 GB.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from service.model.examples import Example, ExamplesError
from service.server.comprehend_requests import S3_URI, branch, invalid, needed, reader, senseless, text, texts
from service.server.s3 import S3

LARGEST = 512 * 2**20
MOST_CLASSES: Mapping[str, int] = {"MULTI_CLASS": 1_000, "MULTI_LABEL": 100}
LONGEST_NAME = 5_000
FEWEST_OF_CLASS = 10
FEWEST, MOST = 50, 1_000_000  # documents in multi-label mode
MOST_MANIFESTS = MOST_ATTRIBUTES = 5
MOST_TESTS = 10_000
_EVERY = 10
csv.field_size_limit(LARGEST)  # a text may be as long as all of them
_ATTRIBUTE = "(?=.{1,63}$)[a-zA-Z0-9](?:-*[a-zA-Z0-9])*"


def config(given: Mapping[str, Any]) -> dict[str, Any]:
    """The `InputDataConfig` of a request; raises `Failure`."""
    found = branch(given, "InputDataConfig")
    form = text(found, "DataFormat", "COMPREHEND_CSV|AUGMENTED_MANIFEST") or "COMPREHEND_CSV"
    source = text(found, "S3Uri", S3_URI, 1024)
    text(found, "TestS3Uri", S3_URI, 1024)
    text(found, "LabelDelimiter", r"[ ~!@#$%^*\-_+=|\\:;\t>?/]")
    reader(found)
    kinds = "PLAIN_TEXT_DOCUMENT|SEMI_STRUCTURED_DOCUMENT"
    native = text(found, "DocumentType", kinds) == "SEMI_STRUCTURED_DOCUMENT"
    if documents := branch(found, "Documents"):
        needed(text(documents, "S3Uri", S3_URI, 1024), "Documents.S3Uri")
        text(documents, "TestS3Uri", S3_URI, 1024)
    for manifest in _manifests(found):
        native |= text(manifest, "DocumentType", kinds) == "SEMI_STRUCTURED_DOCUMENT"
    if native or documents:
        raise senseless("Models of semi-structured documents are not trained here.")
    if form == "COMPREHEND_CSV" and source is None:
        raise senseless("InputDataConfig.S3Uri is missing: COMPREHEND_CSV takes it.")
    if form == "AUGMENTED_MANIFEST" and not found.get("AugmentedManifests"):
        raise senseless("InputDataConfig.AugmentedManifests is missing: AUGMENTED_MANIFEST takes it.")
    return {**found, "DataFormat": form}


def _manifests(given: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    manifests = given.get("AugmentedManifests") or []
    if not isinstance(manifests, list) or not all(isinstance(each, dict) for each in manifests):
        raise invalid("InputDataConfig.AugmentedManifests is to be a list of structures.")
    if len(manifests) > MOST_MANIFESTS:
        raise senseless(f"There may be {MOST_MANIFESTS} manifests.")
    for manifest in manifests:
        needed(text(manifest, "S3Uri", S3_URI, 1024), "AugmentedManifests.S3Uri")
        names = texts(manifest, "AttributeNames", _ATTRIBUTE, 1, 1_000)
        if len(needed(names, "AugmentedManifests.AttributeNames")) > MOST_ATTRIBUTES:
            raise senseless(f"A manifest may have {MOST_ATTRIBUTES} attribute names.")
        text(manifest, "Split", "TRAIN|TEST")
        text(manifest, "AnnotationDataS3Uri", S3_URI, 1024)
        text(manifest, "SourceDocumentsS3Uri", S3_URI, 1024)
    return manifests


def rows(given: Mapping[str, Any], mode: str, s3: S3) -> tuple[Sequence[Example], Sequence[Example]]:
    """What to learn from, and what to test on; for threads.

    `given` is what `config` gave. Raises `ExamplesError` where there is too much or too little of it, or it is not of
    its form, and `ObjectError` where it cannot be read.
    """
    delimiter = (given.get("LabelDelimiter") or "|") if mode == "MULTI_LABEL" else None
    if given["DataFormat"] == "AUGMENTED_MANIFEST":
        manifests = given["AugmentedManifests"]
        found = [row for one in manifests if one.get("Split") != "TEST" for row in _manifest(one, s3)]
        tests = [row for one in manifests if one.get("Split") == "TEST" for row in _manifest(one, s3)]
    else:
        found = list(_csv(given["S3Uri"], delimiter, s3))
        tests = list(_csv(given["TestS3Uri"], delimiter, s3)) if given.get("TestS3Uri") else []
    check(found, mode)
    return (found, tests) if tests else split(found)


def check(found: Sequence[Example], mode: str) -> None:
    """See that there is neither too much nor too little to learn from; raises `ExamplesError`."""
    support = Counter(label for row in found for label in row.labels)
    if not support:
        raise ExamplesError("there are no labelled documents")
    if len(support) > MOST_CLASSES[mode]:
        raise ExamplesError(f"there are {len(support):,} classes, and {MOST_CLASSES[mode]:,} are the most for {mode}")
    if any(len(label) > LONGEST_NAME for label in support):
        raise ExamplesError(f"the name of a class has more than {LONGEST_NAME:,} characters")
    if mode == "MULTI_LABEL" and not FEWEST <= len(found) <= MOST:
        raise ExamplesError(f"there are {len(found):,} documents; MULTI_LABEL takes {FEWEST} to {MOST:,}")
    few = [count for count in support.values() if count < FEWEST_OF_CLASS]
    if few:
        told = f"{len(few)} of {len(support)} classes have fewer than {FEWEST_OF_CLASS} documents"
        raise ExamplesError(f"{told}: each takes that many at least")


def split(found: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
    """Every tenth row apart, for the test, where there are enough."""
    if len(found) < 2 * _EVERY:
        return found, []
    apart = set(range(_EVERY - 1, len(found), _EVERY)[:MOST_TESTS])
    kept = [row for number, row in enumerate(found) if number not in apart]
    return kept, [found[number] for number in sorted(apart)]


def _read(uri: str, s3: S3) -> Iterator[tuple[str, bytes]]:
    for listed in s3.objects(uri, LARGEST):
        with s3.opened(uri, listed.key) as body:
            yield listed.key, body.read()


def _csv(uri: str, delimiter: str | None, s3: S3) -> Iterator[Example]:
    for key, content in _read(uri, s3):
        try:
            lines = io.StringIO(content.decode("utf-8-sig"), newline="")
        except UnicodeDecodeError:
            raise ExamplesError(f"{key} is not UTF-8 text") from None
        try:
            for number, row in enumerate(csv.reader(lines), start=1):
                if not row:
                    continue
                if len(row) != 2 or not row[0] or not row[1]:
                    raise ExamplesError(f"{key}, row {number}: is to have two columns, label and text")
                labels = row[0].split(delimiter) if delimiter else [row[0]]
                yield Example(f"{key}:{number}", row[1], tuple(sorted(set(filter(None, labels)))))
        except csv.Error as error:
            raise ExamplesError(f"{key} is not a CSV file: {error}") from None


def _manifest(manifest: Mapping[str, Any], s3: S3) -> Iterator[Example]:
    for key, content in _read(manifest["S3Uri"], s3):
        for number, line in enumerate(content.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
                labels = {label for name in manifest["AttributeNames"] for label in _labels(row, name)}
                document = row["source"]
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                raise ExamplesError(f"{key}, line {number}: is not a row of an augmented manifest") from None
            if not isinstance(document, str) or not all(isinstance(label, str) for label in labels):
                raise ExamplesError(f"{key}, line {number}: has no text, or labels that are none")
            yield Example(f"{key}:{number}", document, tuple(sorted(labels)))


def _labels(row: Mapping[str, Any], name: str) -> Sequence[str]:
    about = row.get(f"{name}-metadata")
    if about is None:
        return ()
    return list(about["class-map"].values()) if "class-map" in about else [about["class-name"]]
