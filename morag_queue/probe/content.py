"""Detect the format of a file by its content and call the reader for it.

The libraries, compared on files of 40 formats: filetype detects a format in 16 µs and made no mistake, office formats
included (puremagic: 400 µs, and takes pptx for docx and m4a for video). MediaInfo reads every audio and video container
with its resolution (tinytag: audio only). imagesize reads an image in 20 µs (MediaInfo: 2 ms). pypdf reads the page
count of 3,000 pages in 24 ms.

They come with the `probe` extra. Without one of them a file keeps the type of its name, and `problems` names the extra.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from morag_queue.core.model import ContentType
from morag_queue.errors import missing_extra

from .files import BoundedFile
from .formats import Content, decode, decode_legacy, read_image, read_media, read_office, read_pdf, read_text, read_wave
from .names import MIME_OF_SUFFIX, format_size

PARSER_SECONDS = 10.0
"""Time limit of one parser; longer than `files.MAX_SECONDS`, after which a parser gets end-of-file."""

_HEAD_BYTES = 64 * 1024
_SEARCH_BYTES = 4_000_000  # MediaInfo finds formats that filetype does not detect (MPEG-TS, AC-3) within 2 MB
_PDF_OFFSET_MAX = 1024  # PDF readers accept junk before the signature, up to this offset
_OLE_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP_SIGNATURE = b"PK\x03\x04"

is_helper = False
"""Whether a parser that hangs may be ended by killing this process, see `workers.main`."""

T = TypeVar("T")


def read_content(file: BoundedFile, size: int) -> Content:
    """Read the facts of a file. Damaged and unknown content never raises; `problems` describes it."""
    head = file.read(_HEAD_BYTES)
    if not head and not file.limit_reached:
        return Content(problems=("empty",))
    content = _read(file, head, size) if head else Content()
    if file.limit_reached:
        limit = f"only {format_size(file.bytes_read)} of its {format_size(size)} were read"
        content = content._replace(problems=(*content.problems, limit))
    return content


def _read(file: BoundedFile, head: bytes, size: int) -> Content:
    if b"%PDF-" in head[:_PDF_OFFSET_MAX]:
        default = Content(ContentType.DOCUMENT, MIME_OF_SUFFIX["pdf"])
        return _try(lambda: read_pdf(file), file, default, "its pages cannot be read")
    text = decode(head, is_whole=len(head) >= size)
    if text is not None:
        return _read_svg(file, text) or read_text(text, head, size)
    if head.startswith(_ZIP_SIGNATURE):
        problem = "a zip archive, which cannot be processed; unpack it first"
        archive = Content(None, "application/zip", problems=(problem,))
        return _try(lambda: read_office(file) or archive, file, archive, "its content cannot be read")
    if head.startswith(_OLE_SIGNATURE):
        return Content(ContentType.DOCUMENT, "application/x-ole-storage")
    return _read_binary(file, head, size)


def _read_binary(file: BoundedFile, head: bytes, size: int) -> Content:
    try:
        import filetype
    except ModuleNotFoundError as error:
        return Content(problems=(f"its type cannot be detected: {missing_extra(error)}",))
    mime = filetype.guess_mime(head)
    if mime is None and (text := decode_legacy(head)) is not None:
        return read_text(text, head, size)
    if mime is not None and mime.startswith("image/"):
        return _read_image(file, mime)
    if mime is not None and not mime.startswith(("audio/", "video/")):
        return Content(None, mime, problems=(f"its content is {mime}, which cannot be processed",))
    if mime is None:
        file.limit(_SEARCH_BYTES)
    if mime == "audio/x-wav":
        return _read_wave(head, size) or _read_media(file, mime)
    return _read_media(file, mime)


def _read_wave(head: bytes, size: int) -> Content | None:
    try:
        return read_wave(head, size)
    except Exception:  # noqa: BLE001  MediaInfo reads more formats and reports better errors.
        return None


def _read_svg(file: BoundedFile, text: str) -> Content | None:
    if "<svg" not in text[:1024] or not text.lstrip().startswith(("<svg", "<?xml")):
        return None
    return _read_image(file, "image/svg+xml")


def _read_image(file: BoundedFile, mime: str) -> Content:
    default = Content(ContentType.IMAGE, mime)
    file.seek(0)
    content = default
    try:
        content = read_image(file, mime) or default
    except ModuleNotFoundError as error:
        content = default._replace(problems=(f"its dimensions cannot be read: {missing_extra(error)}",))
    except Exception:  # noqa: BLE001  MediaInfo reads more formats and reports better errors.
        content = default
    if content.width is None and not content.problems and mime != "image/svg+xml":
        content = _try(lambda: read_media(file, mime) or default, file, default, "its dimensions cannot be read")
    if content.width is None and not content.problems:
        content = content._replace(problems=("its dimensions cannot be read",))
    return content._replace(content_type=ContentType.IMAGE)


def _read_media(file: BoundedFile, mime: str | None) -> Content:
    kind = ContentType(mime.partition("/")[0]) if mime else None
    problem = f"its content is {mime}, but it has no audio or video track" if mime else "its format is unknown"
    default = Content(kind, mime, problems=(problem,))
    return _try(lambda: read_media(file, mime) or default, file, Content(kind, mime), "its duration cannot be read")


def _try(read: Callable[[], Content], file: BoundedFile, default: Content, failure: str) -> Content:
    """Return the result of a reader; if it fails, `default` with the failure among its problems."""
    file.seek(0)
    try:
        return run_with_timeout(read)
    except Exception as error:  # noqa: BLE001  Parsers raise any exception on a damaged or hostile file.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        cause = missing_extra(error) or f"the file is damaged or truncated ({reason})"
        problem = f"{failure}: {cause}"
        return default._replace(problems=(*default.problems, problem))


def run_with_timeout(read: Callable[[], T]) -> T:
    """Return the result of `read` or raise its exception. Raises TimeoutError after `PARSER_SECONDS`.

    MediaInfo loops forever on a few damaged files in ten thousand. A native call cannot be interrupted, so its thread
    is abandoned and ends with the process at the latest. A probe helper needs no thread, which would double the time of
    small files: it is killed.
    """
    if is_helper:
        return read()
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(read())
        except BaseException as error:  # noqa: BLE001  Raised again below, in the calling thread.
            outcome.append(error)

    thread = threading.Thread(target=run, name="probe", daemon=True)
    thread.start()
    thread.join(PARSER_SECONDS)
    if not outcome:
        raise TimeoutError(f"the parser did not finish within {PARSER_SECONDS:g} s")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
