"""Make real files of the formats that the probe reads, with the standard library and pypdf."""

import struct
import wave
import zipfile
import zlib
from pathlib import Path

from pypdf import PdfWriter

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def wav(path: Path, seconds: float = 3, rate: int = 8000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * int(rate * seconds)))
    return path


def png(path: Path, width: int = 40, height: int = 30) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def mp4(path: Path, seconds: int = 90, width: int = 1280, height: int = 720) -> Path:
    """Make a container with one video track: the boxes with duration and resolution, and almost no data."""
    scale = 1000
    unity = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    mvhd = _full(
        b"mvhd",
        struct.pack(">IIIIIH10x", 0, 0, scale, seconds * scale, 0x10000, 0x100) + unity + bytes(24) + b"\0\0\0\2",
    )
    tkhd = _full(
        b"tkhd",
        struct.pack(">IIIII8xHHHH", 0, 0, 1, 0, seconds * scale, 0, 0, 0, 0)
        + unity
        + struct.pack(">II", width << 16, height << 16),
        flags=7,
    )
    mdhd = _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, scale, seconds * scale, 0x55C4, 0))
    hdlr = _full(b"hdlr", struct.pack(">I4s12x", 0, b"vide") + b"made by hand\0")
    avc1 = _box(
        b"avc1", bytes(6) + struct.pack(">H16xHHIIIH32sHh", 1, width, height, 0x480000, 0x480000, 0, 1, b"", 24, -1)
    )
    tables = [
        _full(b"stsd", struct.pack(">I", 1) + avc1),
        _full(b"stts", struct.pack(">III", 1, 1, seconds * scale)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, 1, 1)),
        _full(b"stsz", struct.pack(">III", 0, 1, 8)),
        _full(b"stco", struct.pack(">II", 1, 40)),
    ]
    dinf = _box(b"dinf", _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", flags=1)))
    minf = _box(b"minf", _full(b"vmhd", bytes(8), flags=1) + dinf + _box(b"stbl", b"".join(tables)))
    moov = _box(b"moov", mvhd + _box(b"trak", tkhd + _box(b"mdia", mdhd + hdlr + minf)))
    path.write_bytes(_box(b"ftyp", b"isom\0\0\2\0isomavc1") + _box(b"mdat", bytes(8)) + moov)
    return path


def pdf(path: Path, pages: int = 3, password: str = "") -> Path:
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(200, 200)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(path)
    return path


def docx(path: Path, pages: int | None = 7, text: str = "Hello") -> Path:
    stated = "" if pages is None else f"<Properties><Pages>{pages}</Pages></Properties>"
    return _zip(
        path,
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": f'<w:document xmlns:w="{W}"><w:p><w:t>{text}</w:t></w:p></w:document>',
            "docProps/app.xml": stated,
        },
    )


def pptx(path: Path, slides: int = 4) -> Path:
    parts = {"[Content_Types].xml": "<Types/>", "ppt/presentation.xml": "<p/>"}
    return _zip(path, parts | {f"ppt/slides/slide{n}.xml": "<s/>" for n in range(slides)})


def xlsx(path: Path, sheets: int = 2) -> Path:
    parts = {"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<w/>"}
    return _zip(path, parts | {f"xl/worksheets/sheet{n}.xml": "<s/>" for n in range(sheets)})


def odt(path: Path, pages: int = 5) -> Path:
    meta = f'<m><meta:document-statistic meta:page-count="{pages}"/></m>'
    return _zip(path, {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<c/>", "meta.xml": meta})


def sparse(path: Path, size: int = 10 * 2**30) -> Path:
    """Make a file of the given size that takes no space on the disk."""
    with path.open("ab") as file:
        file.truncate(size)
    return path


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


def _full(kind: bytes, data: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags) + data)


def _zip(path: Path, parts: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text, zipfile.ZIP_STORED if name == "mimetype" else None)
    return path
