"""Text: whether it is any, its kind, and how much of it there is."""

import codecs
import re

from morag_queue.core.model import ContentType

from .found import Found

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f]")
_HTML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)


def decode(head: bytes, whole: bool) -> str | None:
    """The head of a file as text, where it is UTF-8, UTF-16 or UTF-32; `whole` tells that nothing follows it."""
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=whole)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def decode_legacy(head: bytes) -> str | None:
    """The head as text in some 8-bit encoding: no control characters, so that it cannot be much else."""
    text = head.decode("latin-1")
    return None if _CONTROLS.search(text) else text


def read_text(text: str, head: bytes, size: int) -> Found:
    """`characters` are exact where the head is all of the file, otherwise as many a byte as in the head."""
    characters = len(text) if size <= len(head) else round(len(text) * size / len(head))
    if _HTML.match(text[:4096]):
        mime = "text/html"
    elif text.startswith("{\\rtf"):
        mime = "application/rtf"
    else:
        mime = "text/plain"
    return Found(ContentType.DOCUMENT, mime, characters=characters)
