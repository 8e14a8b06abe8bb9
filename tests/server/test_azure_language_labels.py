"""The documented limits of what is learnt from, in both eras, and what a labels file may say."""

from pathlib import Path
from typing import Any

import pytest

from service.server.azure_language_labels import (
    OF_2021,
    OF_TODAY,
    Labelled,
    LabelsError,
    Limits,
    check,
    from_2021,
    from_assets,
)
from tests.server.conftest import Serve
from tests.server.test_azure_language_authoring import ask, ended, exported, labelled


def rows(count: int, *classes: str) -> list[Labelled]:
    return [Labelled(f"{number}.txt", None, classes or ("a",), "Train") for number in range(count)]


MANY = [Labelled(f"{number}.txt", None, (f"c{number}",), "Train") for number in range(201)]


@pytest.mark.parametrize(
    ("documents", "limits", "said"),
    [
        (rows(9), OF_TODAY, "9 documents are labelled; it takes 10 to 100,000"),
        (rows(1) * 100_001, OF_TODAY, "100001 documents are labelled; it takes 10 to 100,000"),
        (rows(1) * 1_000_001, OF_2021, "it takes 10 to 1,000,000"),
        (MANY, OF_TODAY, "there are 201 classes; it takes 1 to 200"),
        ([one._replace(classes=()) for one in rows(10)], OF_TODAY, "there are 0 classes"),
        (rows(20), OF_2021, "there are 1 classes; it takes 2 to 200"),
        (rows(20) + rows(9, "b"), OF_2021, "class 'b' has 9 documents; it takes 10"),
    ],
)
def test_there_may_be_neither_too_little_nor_too_much(documents: list[Labelled], limits: Limits, said: str) -> None:
    with pytest.raises(LabelsError, match=said):
        check(documents, "multi_label", limits)


@pytest.mark.parametrize(
    ("documents", "limits"),
    [
        (rows(10), OF_TODAY),
        (rows(1) * 100_000, OF_TODAY),
        (MANY[:200], OF_TODAY),
        (rows(10) + rows(10, "b"), OF_2021),
        (rows(1) * 999_990 + rows(10, "b"), OF_2021),
    ],
)
def test_as_much_as_there_may_be_is_enough(documents: list[Labelled], limits: Limits) -> None:
    check(documents, "multi_label", limits)


def test_a_single_label_is_one() -> None:
    with pytest.raises(LabelsError, match=r"3\.txt: a document has exactly one class"):
        check([*rows(3), Labelled("3.txt", None, ("a", "b"), "Train"), *rows(9)], "single_label", OF_TODAY)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"documents": 1}', b'{"documents": [{"location": "a.txt"}]}']
)
def test_a_file_that_holds_no_labels_is_refused(content: bytes) -> None:
    with pytest.raises(LabelsError, match="not one of custom classification"):
        from_2021(content)


@pytest.mark.parametrize(
    "documents", [1, [1], [{}], [{"location": 1}], [{"location": "a.txt", "classes": [{}]}], [{"class": "a"}]]
)
def test_assets_that_hold_no_labels_are_refused(documents: Any) -> None:
    with pytest.raises(LabelsError, match="not those of a project"):
        from_assets({"documents": documents})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x" * 128_001, "more than 128,000 characters"),
        (b" \n", "is empty"),
        (b"", "is empty"),
        (b"\xff\xfe\xff", "is not UTF-8 text"),
    ],
)
async def test_a_document_that_cannot_be_learnt_from_fails_the_training_by_its_name(
    serve: Serve, tmp_path: Path, content: bytes, said: str
) -> None:
    folder = labelled(tmp_path / "container")
    (folder / "0.txt").write_bytes(content)
    async with serve(containers=[f"c={folder}"]) as server:
        await ended(server, await ask(server, "POST", "/p/:import", exported()))
        failed = await ended(server, await ask(server, "POST", "/p/:train", {"modelLabel": "m"}))
    assert failed["errors"][0]["code"] == "InvalidArgument"
    assert failed["errors"][0]["message"].startswith("0.txt")
    assert said in failed["errors"][0]["message"]
