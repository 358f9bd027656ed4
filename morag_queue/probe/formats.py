"""Readers, one per group of formats. Each imports its library on first use, to keep the start of a command fast."""

import codecs
import io
import logging
import re
import zipfile
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from morag_queue.core.model import ContentType

from .files import BoundedFile
from .names import MIME_OF_SUFFIX

if TYPE_CHECKING:
    from pymediainfo import MediaInfo


class Content(NamedTuple):
    """The fields of `Facts` that come from the content of a file."""

    content_type: ContentType | None = None
    mime: str | None = None
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    characters: int | None = None
    problems: tuple[str, ...] = ()


# -- images


def read_image(file: BoundedFile, mime: str) -> Content | None:
    """Read width and height in pixels as displayed (after rotation); None if imagesize finds none.

    imagesize reads headers only, in 20 µs; MediaInfo takes 2 ms.
    """
    import imagesize

    width, height = imagesize.get(file)
    if not (width > 0 and height > 0):
        return None
    return Content(ContentType.IMAGE, mime, width=round(width), height=round(height))


# -- audio and video

_WAVE_MIME = "audio/vnd.wave"


def read_wave(head: bytes, size: int) -> Content | None:
    """Read the duration of a WAV file from its start; None for a damaged or compressed one, which `read_media` reads.

    The standard library takes 40 µs, MediaInfo 2 ms. Both round to milliseconds.
    """
    import wave

    start = io.BytesIO(head)
    with wave.open(start) as sound:
        data, frames, rate = start.tell(), sound.getnframes(), sound.getframerate()
        frame_bytes = sound.getnchannels() * sound.getsampwidth()
    riff_bytes, bytes_per_second = (int.from_bytes(head[at : at + 4], "little") for at in (4, 28))
    is_sound = head.startswith(b"fmt ", 12) and bytes_per_second == rate * frame_bytes
    milliseconds = round(frames * 1000 / rate)
    if not is_sound or not milliseconds or data + frames * frame_bytes > min(size, 8 + riff_bytes):
        return None
    return Content(ContentType.AUDIO, _WAVE_MIME, milliseconds / 1000)


_MAX_DURATION_S = 10 * 365 * 86_400

_PARSER_OF_MIME = {
    **dict.fromkeys(("audio/x-wav", "video/x-msvideo"), "Riff"),
    **dict.fromkeys(("audio/mp4", "video/mp4", "video/x-m4v", "video/quicktime", "video/3gpp"), "Mpeg4"),
    **dict.fromkeys(("video/x-matroska", "video/webm"), "Mk"),
    "audio/mpeg": "Mpega",
    "audio/x-flac": "Flac",
    "audio/ogg": "Ogg",
    "audio/aac": "Adts",
}
"""MediaInfo's parser for a type by filetype. With all of its parsers, a file takes more than twice the time."""

# MediaInfo writes a line per track by this template. All that it knows, as XML, takes half as long again.
_MEDIA_FACTS = "\n".join(
    f"{kind};{kind}|%InternetMediaType%|%Duration%|%Width%|%Height%\\n"
    for kind in ("General", "Video", "Audio", "Text", "Image", "Menu", "Other")
)


def read_media(file: BoundedFile, mime: str | None) -> Content | None:
    """Read duration and resolution from the headers with MediaInfo; None without an audio, video or image track."""
    parser = _PARSER_OF_MIME.get(mime or "", "")
    tracks = _tracks(file, parser)
    if parser and not tracks.keys() & {"Video", "Audio", "Image"}:
        tracks = _tracks(file, "")
    visual = tracks.get("Video") or tracks.get("Image") or ["", "", "", ""]
    mime = tracks.get("General", [""])[0] or mime
    width, height = map(_pixels, visual[2:])
    if "Image" in tracks and "Video" not in tracks and "Audio" not in tracks:
        return Content(ContentType.IMAGE, mime, width=width, height=height)
    kind = ContentType.VIDEO if "Video" in tracks else ContentType.AUDIO if "Audio" in tracks else None
    if kind is None:
        return None
    seconds = max((_duration_s(values[1]) for values in tracks.values()), default=0.0)
    problems = () if seconds else ("its duration is not stated",)
    if seconds > _MAX_DURATION_S:
        seconds, problems = 0.0, ("its header states a duration of more than ten years",)
    if kind is ContentType.AUDIO:
        width = height = None
    return Content(kind, mime, seconds or None, width, height, problems=problems)


def _tracks(file: BoundedFile, parser: str) -> dict[str, list[str]]:
    """Return the facts of the first track of each kind. `parser`: see `_PARSER_OF_MIME`."""
    tracks: dict[str, list[str]] = {}
    for line in _media_info(parser).parse(file, output=_MEDIA_FACTS).splitlines():
        kind, *values = line.split("|")
        tracks.setdefault(kind, values)
    return tracks


@cache
def _media_info(parser: str) -> "type[MediaInfo]":
    from pymediainfo import MediaInfo

    class WithParser(MediaInfo):
        """Sets an option on each new handle: `parse` resets all options after it has set one, which takes 2 ms."""

        @classmethod
        def _get_library(cls, library_file: str | None = None) -> tuple[Any, Any, str, tuple[int, ...]]:
            found = super()._get_library(library_file)
            found[0].MediaInfo_Option(found[1], "File_ForceParser", parser)
            return found

    return WithParser if parser else MediaInfo


def _duration_s(milliseconds: str) -> float:
    try:
        return float(milliseconds or 0) / 1000
    except ValueError:
        return 0.0


def _pixels(text: str) -> int | None:
    return int(text) or None if text.isdecimal() else None


# -- PDF


def read_pdf(file: BoundedFile) -> Content:
    """Read the page count from the root of the page tree with pypdf, without reading the pages."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    mime = MIME_OF_SUFFIX["pdf"]
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs each defect that it repairs
    try:
        pages = int(PdfReader(file).root_object["/Pages"]["/Count"])  # type: ignore[index]
    except (FileNotDecryptedError, DependencyError):
        problem = "encrypted: its pages cannot be counted, and a worker may not be able to open it"
        return Content(ContentType.DOCUMENT, mime, problems=(problem,))
    if pages < 1:
        return Content(ContentType.DOCUMENT, mime, problems=(f"it states a page count of {pages}",))
    return Content(ContentType.DOCUMENT, mime, pages=pages)


# -- office documents: zip archives that state their pages in a small member and hold their text in a larger one

_MAX_MEMBER_BYTES = 4_000_000  # unpacked; a small archive may unpack to gigabytes
_OOXML_PAGES = re.compile(rb"<(?:\w+:)?(?:Pages|Slides)>\s*(\d{1,7})\s*<")
_ODF_PAGES = re.compile(rb'meta:page-count="(\d{1,7})"')
_TAG = re.compile(rb"<[^<>]*>")
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")
_SLIDE = re.compile(r"ppt/slides/[^/]+\.xml")


def read_office(file: BoundedFile) -> Content | None:
    """Count pages, slides or sheets of docx, pptx, xlsx, odt, odp, ods, chapters of epub; None for other archives."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if "word/document.xml" in names:
            text = _TAG.sub(b"", _member(archive, "word/document.xml")).decode("utf-8", "replace")
            return _document("docx", _number(_OOXML_PAGES, _member(archive, "docProps/app.xml")), len(text))
        if "ppt/presentation.xml" in names:
            return _document("pptx", _count(_SLIDE, names))
        if "xl/workbook.xml" in names:
            return _document("xlsx", _count(_SHEET, names))
        mime = _member(archive, "mimetype").decode("ascii", "replace").strip()
        suffix = next((suffix for suffix, known in MIME_OF_SUFFIX.items() if known == mime), None)
        if suffix is None:
            return None
        if suffix == "epub":
            return _document(suffix, sum(name.lower().endswith((".xhtml", ".html", ".htm")) for name in names))
        return _document(suffix, _number(_ODF_PAGES, _member(archive, "meta.xml")))


def _document(suffix: str, pages: int | None, characters: int | None = None) -> Content:
    return Content(ContentType.DOCUMENT, MIME_OF_SUFFIX[suffix], pages=pages or None, characters=characters)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as member:
            return member.read(_MAX_MEMBER_BYTES)
    except KeyError:
        return b""


def _number(pattern: re.Pattern[bytes], data: bytes) -> int | None:
    match = pattern.search(data)
    return int(match[1]) if match else None


def _count(pattern: re.Pattern[str], names: list[str]) -> int:
    return sum(pattern.fullmatch(name) is not None for name in names)


# -- text

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f]")
# Atomic groups: without them, the time for many comments and no tag behind them would double with each comment.
_HTML = re.compile(r"\s*(?><\?xml[^>]*>\s*)?(?><!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)


def decode(head: bytes, is_whole: bool) -> str | None:
    """Decode the start of a file as UTF-8, UTF-16 or UTF-32; None if it is none of them.

    Unless the head `is_whole`, its last character may be incomplete.
    """
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=is_whole)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def decode_legacy(head: bytes) -> str | None:
    """Decode the start of a file as 8-bit text; None if it contains control characters."""
    text = head.decode("latin-1")
    return None if _CONTROLS.search(text) else text


def read_text(text: str, head: bytes, size: int) -> Content:
    """Return MIME type and `characters`: exact if the head is the whole file, else extrapolated from the head."""
    characters = len(text) if size <= len(head) else round(len(text) * size / len(head))
    if _HTML.match(text[:4096]):
        mime = "text/html"
    elif text.startswith("{\\rtf"):
        mime = MIME_OF_SUFFIX["rtf"]
    else:
        mime = "text/plain"
    return Content(ContentType.DOCUMENT, mime, characters=characters)
