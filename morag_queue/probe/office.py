"""Office documents: zip archives that state their pages in a small file, and hold their text in a larger one."""

import re
import zipfile

from morag_queue.core.model import ContentType

from .found import Found
from .opened import Bounded
from .suffixes import SIGNED

_PART_MAX = 4_000_000  # bytes unpacked of one part: a small archive may unpack to gigabytes
_STATED = re.compile(rb"<(?:\w+:)?(?:Pages|Slides)>\s*(\d{1,7})\s*<")
_ODF_PAGES = re.compile(rb'meta:page-count="(\d{1,7})"')
_TAG = re.compile(rb"<[^>]*>")
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
_SLIDE = re.compile(r"ppt/slides/[^/]+\.xml")


def read_office(file: Bounded) -> Found | None:
    """Pages, slides or sheets of docx, pptx, xlsx, odt, odp, ods, and chapters of epub; None for another archive."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if "word/document.xml" in names:
            text = _TAG.sub(b"", _part(archive, "word/document.xml")).decode("utf-8", "replace")
            return _document("docx", _number(_STATED, _part(archive, "docProps/app.xml")), len(text))
        if "ppt/presentation.xml" in names:
            return _document("pptx", _count(_SLIDE, names))
        if "xl/workbook.xml" in names:
            return _document("xlsx", _count(_SHEET, names))
        mime = _part(archive, "mimetype").decode("ascii", "replace").strip()
        suffix = next((suffix for suffix, signed in SIGNED.items() if signed == mime), None)
        if suffix is None:
            return None
        if suffix == "epub":
            return _document(suffix, sum(name.lower().endswith((".xhtml", ".html", ".htm")) for name in names))
        return _document(suffix, _number(_ODF_PAGES, _part(archive, "meta.xml")))


def _document(suffix: str, pages: int | None, characters: int | None = None) -> Found:
    return Found(ContentType.DOCUMENT, SIGNED[suffix], pages=pages or None, characters=characters)


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as part:
            return part.read(_PART_MAX)
    except KeyError:
        return b""


def _number(pattern: re.Pattern[bytes], part: bytes) -> int | None:
    match = pattern.search(part)
    return int(match[1]) if match else None


def _count(pattern: re.Pattern[str], names: list[str]) -> int:
    return sum(pattern.fullmatch(name) is not None for name in names)
