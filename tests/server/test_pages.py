import io
import zipfile
from contextlib import suppress
from typing import Any

import docx
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.server import pages
from service.server.pages import Unreadable, read
from tests.server.documents import pdf, word


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"one page", ["one page"]),
        ("Grüße \U0001f642".encode(), ["Grüße \U0001f642"]),
        ("\ufeffmarked".encode(), ["marked"]),
        ("wide".encode("utf-16"), ["wide"]),
        (b"one\ftwo\f\n", ["one\ftwo\f\n"]),
    ],
)
def test_text_is_one_page(content: bytes, texts: list[str]) -> None:
    assert read(content) == ("text/plain", texts)


def test_a_pdf_is_read_page_by_page() -> None:
    assert read(pdf(["The invoice is due", "A receipt"])) == ("application/pdf", ["The invoice is due", "A receipt"])


def test_a_word_document_is_one_page() -> None:
    kind, texts = read(word(["The invoice", "is due"]))
    assert kind.endswith("wordprocessingml.document")
    assert list(texts) == ["The invoice\nis due"]


def table_document(**changes: bytes) -> bytes:
    """A Word document of a table between two paragraphs, with changes made inside its XML."""
    document, file, changed = docx.Document(), io.BytesIO(), io.BytesIO()
    document.add_paragraph("before")
    for cell, text in zip(document.add_table(1, 2).rows[0].cells, ("left", "right"), strict=True):
        cell.text = text
    document.add_paragraph("after")
    document.save(file)
    with zipfile.ZipFile(file) as made, zipfile.ZipFile(changed, "w") as copy:
        for member in made.namelist():
            content = made.read(member)
            for old, new in changes.items():
                content = content.replace(b"<w:%b>" % old.encode(), new)
            copy.writestr(member, content)
    return changed.getvalue()


def test_tables_of_a_word_document_are_read_in_their_places() -> None:
    assert read(table_document()).texts == ["before\nleft\nright\nafter"]


def test_a_cell_that_claims_to_span_millions_of_columns_is_read_once() -> None:
    wide = table_document(tcPr=b'<w:tcPr><w:gridSpan w:val="900000000"/>')
    assert read(wide).texts == ["before\nleft\nright\nafter"]


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_an_encrypted_pdf_is_read_only_if_it_takes_no_password(algorithm: str) -> None:
    for password, is_read in (("", True), ("secret", False)):
        writer, file = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(["a page"]))), io.BytesIO()
        writer.encrypt(password, owner_password="owner", algorithm=algorithm)
        writer.write(file)
        if is_read:
            assert read(file.getvalue()).texts == ["a page"]
        else:
            with pytest.raises(Unreadable, match="encrypted"):
                read(file.getvalue())


def test_a_pdf_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(Unreadable, match="too long"):
        read(pdf(["a page"]), seconds=0)


def test_halves_of_characters_in_a_pdf_become_text_that_can_be_written() -> None:
    writer, file = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(["A"]))), io.BytesIO()
    mapping = pypdf.generic.DecodedStreamObject()
    mapping.set_data(
        b"begincmap\n1 begincodespacerange <00> <FF> endcodespacerange\n1 beginbfchar\n<41> <D800>\nendbfchar\nendcmap"
    )
    page: Any = writer.pages[0]
    font = page["/Resources"]["/Font"]["/F1"]
    font[pypdf.generic.NameObject("/ToUnicode")] = writer._add_object(mapping)
    writer.write(file)
    assert read(file.getvalue()).texts == ["\ufffd"]


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n\xff", "neither PDF nor Word"),
        (b"text with \0", "neither PDF nor Word"),
        (b"x" * (pages.MOST_TEXT_BYTES + 1), "bytes"),
        (b"%PDF-1.4 and nothing else", "damaged"),
        (pdf(["x"] * 301), "301 pages"),
        (pdf(["x"]).replace(b"/Contents", b"/Cantants").replace(b"/Kids", b"/Kods"), ""),
        (archive(readme=b"x"), "no Word document"),
        (archive(word__document_xml=b"<not xml"), "damaged"),
        (archive(word__document_xml=b"0" * (65 * 2**20)), "holds more than"),
        (b"PK\x03\x04 and nothing else", "damaged"),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, why: str) -> None:
    if not why:
        assert read(content).texts == [""]
        return
    with pytest.raises(Unreadable, match=why):
        read(content)


GOOD = [pdf(["a page"]), word(["a page"]), "Grüße".encode()]


@given(st.sampled_from(GOOD), st.integers(0, 10_000), st.binary(max_size=20))
def test_whatever_is_damaged_is_read_or_refused(content: bytes, at: int, noise: bytes) -> None:
    place = at % len(content)
    damaged = content[:place] + noise + content[place + len(noise) // 2 :]
    with suppress(Unreadable):
        assert all(isinstance(text, str) for text in read(damaged).texts)
