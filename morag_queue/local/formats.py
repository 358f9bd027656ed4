"""Write small, valid files of the types that MoRAG ingests, with the standard library only."""

import math
import struct
import wave
import zipfile
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

RATE = 8000
"""Samples per second of a WAV file: at one byte each, 30 s take 240 kB."""


def write_wav(path: Path, seconds: float, hertz: float) -> None:
    """Write an 8-bit mono tone whose volume rises and falls once a second."""
    second = bytes(
        128 + round(100 * math.sin(math.pi * sample / RATE) * math.sin(2 * math.pi * hertz * sample / RATE))
        for sample in range(RATE)
    )
    length = round(seconds * RATE)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(RATE)
        sound.writeframes((second * (length // RATE + 1))[:length])


def write_png(path: Path, width: int, height: int, shade: int) -> None:
    """Write grey stripes, which compress well at any size."""
    light, dark = (b"\0" + bytes([value % 256]) * width for value in (shade, shade + 64))
    rows = (light * 16 + dark * 16) * (height // 32 + 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(rows[: height * (width + 1)], 1)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", data) + _png_chunk(b"IEND", b"")
    )


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_avi(path: Path, seconds: int, shade: int, width: int = 32, height: int = 24) -> None:
    """Write a video of one uncompressed frame per second, each lighter than the last."""
    frame_size = width * height * 3
    frames = [bytes([(shade + 5 * number) % 256]) * frame_size for number in range(seconds)]
    main = struct.pack("<14I", 1_000_000, frame_size, 0, 0x10, seconds, 0, 1, frame_size, width, height, 0, 0, 0, 0)
    stream = struct.pack(
        "<4s4sIHHIIIIIIII4H", b"vids", b"DIB ", 0, 0, 0, 0, 1, 1, 0, seconds, frame_size, 0, 0, 0, 0, width, height
    )
    bitmap_info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, frame_size, 0, 0, 0, 0)
    described = _riff_list(b"strl", _riff(b"strh", stream), _riff(b"strf", bitmap_info))
    index = b"".join(
        struct.pack("<4sIII", b"00db", 0x10, 4 + number * (8 + frame_size), frame_size) for number in range(seconds)
    )
    film = _riff_list(b"movi", *(_riff(b"00db", frame) for frame in frames))
    header = _riff_list(b"hdrl", _riff(b"avih", main), described)
    path.write_bytes(_riff(b"RIFF", b"AVI " + header + film + _riff(b"idx1", index)))


def _riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _riff_list(name: bytes, *parts: bytes) -> bytes:
    return _riff(b"LIST", name + b"".join(parts))


def write_pdf(path: Path, pages: Sequence[str]) -> None:
    """Write one page per string, wrapped at 80 characters."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        lines = [text[start : start + 80] for start in range(0, len(text), 80)]
        shown = "".join(f"({line}) Tj T* " for line in lines)
        content = f"BT /F1 11 Tf 14 TL 50 780 Td {shown}ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    out, places = bytearray(b"%PDF-1.4\n"), array("L")
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("ascii")
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    out += (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    ).encode("ascii")
    path.write_bytes(out)


_TYPES = """<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/word/document.xml"
 ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/>
<Override PartName="/docProps/app.xml"
 ContentType="application/vnd.openxmlformats-officedocument.extended-properties+xml"/></Types>"""
_RELATIONS = """<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="r1" Target="word/document.xml"
 Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/>
<Relationship Id="r2" Target="docProps/app.xml"
 Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/extended-properties"/></Relationships>"""
_APP = """<?xml version="1.0" encoding="UTF-8"?>
<Properties xmlns="http://schemas.openxmlformats.org/officeDocument/2006/extended-properties">
<Pages>{pages}</Pages></Properties>"""
_DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{body}</w:body></w:document>"""
_PARAGRAPH = "<w:p>{start}<w:r><w:t>{text}</w:t></w:r></w:p>"
_NEW_PAGE = "<w:pPr><w:pageBreakBefore/></w:pPr>"


def write_docx(path: Path, pages: Sequence[str]) -> None:
    """Write a Word document with one page per string."""
    body = "".join(
        _PARAGRAPH.format(start=_NEW_PAGE if number else "", text=escape(text)) for number, text in enumerate(pages)
    )
    parts = {
        "[Content_Types].xml": _TYPES,
        "_rels/.rels": _RELATIONS,
        "docProps/app.xml": _APP.format(pages=len(pages)),
        "word/document.xml": _DOCUMENT.format(body=body),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            # A fixed date, so that the same seed gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
