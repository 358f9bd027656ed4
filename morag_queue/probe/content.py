"""Which reader suits a file's content, and what it makes of it.

The libraries, compared on files of 40 formats: filetype names a content in 16 µs and was right on all it named, office
formats included (puremagic: 400 µs, and takes pptx for docx and m4a for video); MediaInfo knows every audio and video
container and their resolutions (tinytag: audio only); imagesize needs 20 µs for an image (MediaInfo: 2 ms); pypdf
reads the page count of 3,000 pages in 24 ms. Each is imported where a file needs it.
"""

import contextlib
from collections.abc import Callable

from morag_queue.core.model import ContentType

from .found import Found
from .names import size_shown
from .office import read_office
from .opened import Bounded
from .pdf import MIME as PDF
from .pdf import read_pdf
from .text import decode, decode_legacy, read_text
from .timed import in_time

_HEAD = 64 * 1024
_SEARCH = 4_000_000  # MediaInfo finds what filetype does not know (MPEG-TS, AC-3) within 2 MB
_PDF_WITHIN = 1024  # readers of PDF accept junk before its mark, up to here
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = b"PK\x03\x04"


def read_content(file: Bounded, size: int) -> Found:
    """What the content is. Never raises for what a file contains; what does not fit is in `problems`."""
    head = file.read(_HEAD)
    if not head and not file.out_of_share:
        return Found(problems=("empty",))
    found = _read(file, head, size) if head else Found()
    if file.out_of_share:
        share = f"only {size_shown(file.fetched)} of its {size_shown(size)} were read"
        found = found._replace(problems=(*found.problems, share))
    return found


def _read(file: Bounded, head: bytes, size: int) -> Found:
    if b"%PDF-" in head[:_PDF_WITHIN]:
        return _tried(lambda: read_pdf(file), file, Found(ContentType.DOCUMENT, PDF), "its pages")
    text = decode(head, whole=len(head) >= size)
    if text is not None:
        return _read_svg(file, text) or read_text(text, head, size)
    if head.startswith(_ZIP):
        other = Found(None, "application/zip", problems=("a zip archive, which is no kind of work; unpack it first",))
        return _tried(lambda: read_office(file) or other, file, other, "its content")
    if head.startswith(_OLE):
        return Found(ContentType.DOCUMENT, "application/x-ole-storage")
    return _read_binary(file, head, size)


def _read_binary(file: Bounded, head: bytes, size: int) -> Found:
    import filetype

    mime = filetype.guess_mime(head)
    if mime is None and (text := decode_legacy(head)) is not None:
        return read_text(text, head, size)
    if mime is not None and mime.startswith("image/"):
        return _read_image(file, mime)
    if mime is not None and not mime.startswith(("audio/", "video/")):
        return Found(None, mime, problems=(f"its content is {mime}, which is no kind of work",))
    if mime is None:
        file.limit(_SEARCH)
    return _read_media(file, mime)


def _read_svg(file: Bounded, text: str) -> Found | None:
    if "<svg" not in text[:1024] or not text.lstrip().startswith(("<svg", "<?xml")):
        return None
    return _read_image(file, "image/svg+xml")


def _read_image(file: Bounded, mime: str) -> Found:
    from .image import read_image
    from .media import read_media

    image = Found(ContentType.IMAGE, mime)
    file.seek(0)
    found = image
    with contextlib.suppress(Exception):  # MediaInfo has the last word, and the better messages
        found = read_image(file, mime) or image
    if found.width is None and mime != "image/svg+xml":
        found = _tried(lambda: read_media(file, mime) or image, file, image, "its size")
    if found.width is None and not found.problems:
        found = found._replace(problems=("its size cannot be read",))
    return found._replace(content_type=ContentType.IMAGE)


def _read_media(file: Bounded, mime: str | None) -> Found:
    from .media import read_media

    kind = ContentType(mime.partition("/")[0]) if mime else None
    what = f"its content is {mime}, but holds nothing that plays" if mime else "its content is of no known kind"
    nothing = Found(kind, mime, problems=(what,))
    return _tried(lambda: read_media(file, mime) or nothing, file, Found(kind, mime), "its playing time")


def _tried(read: Callable[[], Found], file: Bounded, otherwise: Found, what: str) -> Found:
    """What the reader finds; where it fails, what was known before and the failure in words."""
    file.seek(0)
    try:
        return in_time(read)
    except Exception as error:  # noqa: BLE001  Parsers of hostile files fail in every way that there is.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        problem = f"{what} cannot be read, it is broken or cut off ({reason})"
        return otherwise._replace(problems=(*otherwise.problems, problem))
