"""Files as pages of text: plain text, PDF (pypdf) and Word (python-docx); for threads, not for the event loop.

What kind a file is, its content says, not its name. Plain text is UTF-8 (or UTF-16 with a byte order mark), and one
page, whatever form feeds it has; a Word file is one page, too, its tables in their places. Files are read as if they
were hostile: sizes and numbers of pages are bounded, also those of what is compressed inside, and so is the time that a
PDF's pages may take.
What reads PDF and Word is imported with the first of them: a server starts in three quarters of the time without.
"""

import io
import logging
import time
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pypdf

MOST_BYTES = 200 * 2**20
MOST_TEXT_BYTES = 2**20
MOST_CHARACTERS = 1_000_000
MOST_PAGES = 300
MOST_SECONDS = 60.0  # forms inside forms can make a small PDF go on for years
_MOST_UNPACKED = 64 * 2**20
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it would quote files in its warnings


class Unreadable(Exception):
    """A file has no text that can be read; the message says why, and quotes nothing of it."""


class Pages(NamedTuple):
    """The text of a file, page by page, and what kind of file it is (a media type)."""

    kind: str
    texts: Sequence[str]


def read(content: bytes, seconds: float = MOST_SECONDS) -> Pages:
    """The pages of a file, where a PDF's can be made out in so many seconds; raises `Unreadable`."""
    if not content:
        raise Unreadable("the file is empty")
    if content.startswith(b"%PDF-"):
        pages = Pages("application/pdf", _pdf(content, seconds))
    elif content.startswith(b"PK\x03\x04"):
        pages = Pages(_WORD, [_word(content)])
    else:
        pages = Pages("text/plain", [_text(content)])
    if len(pages.texts) > MOST_PAGES:
        raise Unreadable(f"the file has {len(pages.texts)} pages, more than {MOST_PAGES}")
    return pages


def _text(content: bytes) -> str:
    if len(content) > MOST_TEXT_BYTES:
        raise Unreadable(f"a text file may have {MOST_TEXT_BYTES:,} bytes")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise Unreadable("the file is neither PDF nor Word nor UTF-8 text") from None
    if "\0" in text:
        raise Unreadable("the file is neither PDF nor Word nor text")
    if len(text) > MOST_CHARACTERS:
        raise Unreadable(f"a text file may have {MOST_CHARACTERS:,} characters")
    return text


def _pdf(content: bytes, seconds: float) -> list[str]:
    import pypdf  # noqa: PLC0415  see above

    try:
        return _pdf_texts(pypdf.PdfReader(io.BytesIO(content)), time.monotonic() + seconds)
    except Unreadable:
        raise
    except Exception as error:  # noqa: BLE001  whatever a damaged file makes pypdf and its decoders raise
        raise Unreadable(f"the PDF is damaged ({type(error).__name__})") from None


def _pdf_texts(reader: "pypdf.PdfReader", deadline: float) -> list[str]:
    def keep_time(*_: object) -> None:
        if time.monotonic() >= deadline:
            raise Unreadable("the PDF takes too long to read")

    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("the PDF is encrypted")
    if len(reader.pages) > MOST_PAGES:
        raise Unreadable(f"the PDF has {len(reader.pages)} pages, more than {MOST_PAGES}")
    texts, room = [], MOST_CHARACTERS
    for page in reader.pages:
        text = page.extract_text(visitor_operand_before=keep_time)[:room]
        texts.append(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))  # fonts may map to halves
        room -= len(texts[-1])
    return texts or [""]


def _word(content: bytes) -> str:
    import docx  # noqa: PLC0415  see above
    from docx.oxml.ns import qn  # noqa: PLC0415

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_archive(archive)
        document = docx.Document(io.BytesIO(content))
        parts = [paragraph.text for paragraph in document.element.body.iter(qn("w:p"))]
    except Unreadable:
        raise
    except Exception as error:  # noqa: BLE001  whatever a damaged archive makes lxml and python-docx raise
        raise Unreadable(f"the Word document is damaged ({type(error).__name__})") from None
    return "\n".join(parts)[:MOST_CHARACTERS]


def _check_archive(archive: zipfile.ZipFile) -> None:
    if "word/document.xml" not in archive.namelist():
        raise Unreadable("the file is a ZIP archive and no Word document")
    if sum(member.file_size for member in archive.infolist()) > _MOST_UNPACKED:
        raise Unreadable(f"the Word document holds more than {_MOST_UNPACKED:,} bytes")
