"""What a name claims: suffix → content type. One table for files and for the paths of URLs."""

import os

from morag_queue.core.model import ContentType

_BY_TYPE = {
    ContentType.AUDIO: "aac ac3 aif aiff alac amr ape au flac m4a m4b mka mp2 mp3 oga ogg opus ra wav wma",
    ContentType.VIDEO: "3g2 3gp asf avi divx f4v flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv qt rm rmvb ts vob webm wmv",
    ContentType.IMAGE: "avif bmp gif heic heif ico j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm svg tga tif tiff webp",
    ContentType.DOCUMENT: (
        "adoc csv doc docx epub htm html json log markdown md odp ods odt org pdf ppt pptx ps rst rtf tex text tsv txt"
        " xhtml xls xlsx xml yaml yml"
    ),
}
_SUFFIXES = {suffix: kind for kind, suffixes in _BY_TYPE.items() for suffix in suffixes.split()}

# Formats with a signature of their own: a file that bears the suffix and is something else has the wrong name.
SIGNED = {
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


def suffix_of(path: str) -> str:
    """The suffix without its dot, in small letters; empty where there is none."""
    return os.path.splitext(path)[1][1:].lower()


def type_by_name(path: str) -> ContentType | None:
    return _SUFFIXES.get(suffix_of(path))
