"""Source names: safe display, and the content type that a suffix suggests."""

import os
import re

from morag_queue.core.model import ContentType

_USERINFO = re.compile(r"(?<=://)[^/?#@]*@")

_SUFFIXES_OF_TYPE = {
    ContentType.AUDIO: "aac ac3 aif aiff alac amr ape au flac m4a m4b mka mp2 mp3 oga ogg opus ra wav wma",
    ContentType.VIDEO: "3g2 3gp asf avi divx f4v flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv qt rm rmvb ts vob webm wmv",
    ContentType.IMAGE: "avif bmp gif heic heif ico j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm svg tga tif tiff webp",
    ContentType.DOCUMENT: (
        "adoc csv doc docx epub htm html json log markdown md odp ods odt org pdf ppt pptx ps rst rtf tex text tsv txt"
        " xhtml xls xlsx xml yaml yml"
    ),
}
_TYPE_OF_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES_OF_TYPE.items() for suffix in suffixes.split()}

MIME_OF_SUFFIX = {
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "epub": "application/epub+zip",
    "rtf": "application/rtf",
}
"""Formats with a signature. A file with one of these suffixes and another MIME type has the wrong name."""


def suffix_of(path: str) -> str:
    """Return the suffix in lower case without its dot, or ""."""
    return os.path.splitext(path)[1][1:].lower()


def type_by_name(path: str) -> ContentType | None:
    """Return the content type that the suffix of a file or URL path suggests."""
    return _TYPE_OF_SUFFIX.get(suffix_of(path))


def display_name(source: str) -> str:
    """Return the source for a message: control characters and invalid UTF-8 escaped, the login of a URL masked."""
    text = _USERINFO.sub("***@", source)
    return text if text.isprintable() else "".join(map(_escape, text))


def format_size(size: int) -> str:
    """Format bytes in decimal units with one decimal place, for example "16.0 MB"."""
    if size < 1000:
        return f"{size} bytes"
    power = min((len(str(size)) - 1) // 3, 4)
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # Python's surrogate escape for a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
