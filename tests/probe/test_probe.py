"""Files read by their content."""

import codecs
import os
from pathlib import Path
from typing import Any

import pytest

from morag_queue.core.model import ContentType, Facts
from morag_queue.probe import probe
from tests.probe import makers

DOCUMENT, AUDIO, VIDEO, IMAGE = ContentType.DOCUMENT, ContentType.AUDIO, ContentType.VIDEO, ContentType.IMAGE
HTML = "<!DOCTYPE html>\n<html><body>Hello</body></html>"
OFFICE = "application/vnd.openxmlformats-officedocument"


def facts_of_content(facts: Facts) -> dict[str, Any]:
    """Return the known facts that come from the content."""
    values = facts.model_dump(exclude={"source", "is_url", "size_bytes", "declared_type"}, exclude_none=True)
    return {name: value for name, value in values.items() if value != ()}


@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (makers.wav, "a.wav", {"content_type": AUDIO, "mime": "audio/vnd.wave", "duration_s": 3.0}),
        (makers.png, "a.png", {"content_type": IMAGE, "mime": "image/png", "width": 40, "height": 30}),
        (
            makers.mp4,
            "a.mp4",
            {"content_type": VIDEO, "mime": "video/mp4", "duration_s": 90.0, "width": 1280, "height": 720},
        ),
        (makers.pdf, "a.pdf", {"content_type": DOCUMENT, "mime": "application/pdf", "pages": 3}),
        (
            makers.docx,
            "a.docx",
            {"content_type": DOCUMENT, "mime": f"{OFFICE}.wordprocessingml.document", "pages": 7, "characters": 5},
        ),
        (
            makers.pptx,
            "a.pptx",
            {"content_type": DOCUMENT, "mime": f"{OFFICE}.presentationml.presentation", "pages": 4},
        ),
        (makers.xlsx, "a.xlsx", {"content_type": DOCUMENT, "mime": f"{OFFICE}.spreadsheetml.sheet", "pages": 2}),
        (
            makers.odt,
            "a.odt",
            {"content_type": DOCUMENT, "mime": "application/vnd.oasis.opendocument.text", "pages": 5},
        ),
    ],
)
def test_a_file_is_read_by_its_content(make: Any, name: str, expected: dict[str, Any], tmp_path: Path) -> None:
    path = make(tmp_path / name)
    facts = probe(str(path))
    assert facts_of_content(facts) == expected
    assert facts.size_bytes == path.stat().st_size
    assert facts.declared_type == expected["content_type"]
    unnamed = path.rename(tmp_path / "no suffix")
    assert facts_of_content(probe(str(unnamed))) == expected
    assert probe(str(unnamed)).declared_type is None


@pytest.mark.parametrize(
    ("content", "mime", "characters"),
    [
        (b"Hello, world.\n", "text/plain", 14),
        ("Grüße, мир\n".encode(), "text/plain", 11),
        (codecs.BOM_UTF8 + "Grüße".encode(), "text/plain", 5),
        ("Grüße".encode("utf-16"), "text/plain", 5),
        ("Grüße aus Köln".encode("latin-1"), "text/plain", 14),
        (HTML.encode(), "text/html", len(HTML)),
        (b"<!-- a page --> <html lang='en'>", "text/html", 32),
        (b"BMW is a car, and no picture.", "text/plain", 29),
        (b'{"json": true}', "text/plain", 14),
        (b"{\\rtf1 Hello}", "application/rtf", 13),
    ],
)
def test_text_is_a_document_with_its_characters(content: bytes, mime: str, characters: int, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    assert facts_of_content(probe(str(path))) == {"content_type": DOCUMENT, "mime": mime, "characters": characters}


def test_characters_of_a_long_text_are_extrapolated(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("äöü " * 1_000_000)
    assert probe(str(path)).characters == pytest.approx(4_000_000, rel=0.001)


def test_an_svg_image_has_the_size_that_it_states(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200"></svg>')
    assert facts_of_content(probe(str(path))) == {
        "content_type": IMAGE,
        "mime": "image/svg+xml",
        "width": 300,
        "height": 200,
    }


@pytest.mark.parametrize(
    "name",
    [b"new\nline.wav", b"\x1b[31mred.wav", b"not utf-8 \xff\xfe.wav", b" .wav", "größe.wav".encode(), b"-rf.wav"],
)
def test_a_file_of_any_name_is_read(name: bytes, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    facts = probe(str(makers.wav(path)) if b"\xff" not in name else _renamed(makers.wav(tmp_path / "x.wav"), path))
    assert (facts.content_type, facts.duration_s, facts.problems) == (AUDIO, 3.0, ())
    assert facts.source == str(path)


def _renamed(path: Path, to: Path) -> str:
    return str(path.rename(to))


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    makers.png(tmp_path / "a.png")
    link = tmp_path / "link"
    link.symlink_to("a.png")
    assert probe(str(link)).width == 40
