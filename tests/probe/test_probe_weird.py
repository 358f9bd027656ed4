"""Files that are empty, damaged, misnamed, unreadable or huge give facts with problems, never an error."""

import os
import random
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from morag_queue.core.model import ContentType
from morag_queue.errors import SourceError
from morag_queue.local.formats import write_avi
from morag_queue.probe import content, display_name, files, formats, probe
from tests.probe import makers


def problems(path: Path, **options: Any) -> str:
    return "; ".join(probe(str(path), **options).problems)


def test_an_empty_file_is_reported_and_keeps_the_type_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.touch()
    facts = probe(str(path))
    assert facts.problems == ("empty",)
    assert (facts.content_type, facts.declared_type, facts.size_bytes) == (None, ContentType.AUDIO, 0)


@pytest.mark.parametrize(
    ("make", "name", "problem"),
    [
        (makers.png, "a.pdf", "named like document (.pdf), but its content is image (image/png)"),
        (makers.pdf, "a.mp4", "named like video (.mp4), but its content is document (application/pdf)"),
        (makers.odt, "a.docx", "named .docx, but its content is document (application/vnd.oasis.opendocument.text)"),
    ],
)
def test_a_misnamed_file_is_reported(make: Any, name: str, problem: str, tmp_path: Path) -> None:
    assert problem in problems(make(tmp_path / name))


def test_content_that_differs_from_the_declared_type_is_reported(tmp_path: Path) -> None:
    path = makers.png(tmp_path / "a.png")
    facts = probe(str(path), declared=ContentType.AUDIO)
    assert facts.declared_type is ContentType.AUDIO
    assert facts.content_type is ContentType.IMAGE
    assert facts.problems == ("declared audio, but its content is image (image/png)",)
    assert problems(path, declared=ContentType.IMAGE) == ""


def test_a_video_container_without_video_is_audio_and_not_misnamed(tmp_path: Path) -> None:
    facts = probe(str(makers.wav(tmp_path / "a.mkv")))
    assert (facts.content_type, facts.problems) == (ContentType.AUDIO, ())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"PK\x03\x04 and nothing of a zip archive\0", "its content cannot be read: the file is damaged or truncated"),
        (b"%PDF-1.7\nnothing more", "its pages cannot be read: the file is damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "its dimensions cannot be read"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), "its content is application/x-executable, which cannot be processed"),
        (b"\x01\x02\x03\x00" * 50, "its format is unknown"),
    ],
)
def test_unreadable_content_is_reported(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert problem in problems(path)


def test_an_archive_that_is_not_a_document_cannot_be_processed(tmp_path: Path) -> None:
    path = makers._zip(tmp_path / "a.zip", {"readme.txt": "Hello"})
    assert problems(path) == "a zip archive, which cannot be processed; unpack it first"
    assert probe(str(path)).content_type is None


def test_an_encrypted_pdf_has_an_unknown_page_count(tmp_path: Path) -> None:
    facts = probe(str(makers.pdf(tmp_path / "a.pdf", password="secret")))
    assert (facts.content_type, facts.pages) == (ContentType.DOCUMENT, None)
    assert facts.problems == ("encrypted: its pages cannot be counted, and a worker may not be able to open it",)


def test_a_document_that_unpacks_to_50_mb_is_read_in_part(tmp_path: Path) -> None:
    facts = probe(str(makers.docx(tmp_path / "a.docx", text="x" * 50_000_000)))
    assert facts.characters is not None
    assert 3_900_000 < facts.characters < 4_000_000


@pytest.mark.parametrize("make", [makers.wav, makers.png, makers.mp4, makers.pdf, makers.docx])
def test_a_damaged_file_gives_facts(make: Any, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole").read_bytes()[:4000]
    chance = random.Random(1)
    path = tmp_path / "damaged"
    for _ in range(60):
        damaged = bytearray(whole[: chance.randrange(1, len(whole) + 1)])
        for _ in range(chance.randrange(20)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        assert probe(str(path)).size_bytes == len(damaged)


def test_a_read_error_is_reported() -> None:
    facts = probe("/proc/self/mem")
    assert facts.problems == ("cannot be read (Input/output error); a worker may not be able to either",)


def test_a_file_without_read_permission_is_reported(tmp_path: Path) -> None:
    makers.png(tmp_path / "a.png").chmod(0)
    tmp_path.chmod(0o755)
    code = "import os; from morag_queue.probe import probe; os.geteuid() or os.setuid(65534); "
    code += "print(probe('a.png').problems[0])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "cannot be read (Permission denied); a worker may not be able to either\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "name"),
    [
        (makers.wav, "a.wav"),
        (makers.mp4, "a.mp4"),
        (makers.pdf, "a.pdf"),
        (makers.png, "a.png"),
        (makers.docx, "a.docx"),
        (Path.touch, "a.mp4"),
        (Path.touch, "a.bin"),
    ],
)
def test_a_sparse_file_of_ten_gigabytes_is_read_in_part(start: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    start(path)
    makers.sparse(path)
    before = _bytes_read()
    facts = probe(str(path))
    assert _bytes_read() - before < 2 * files.MAX_BYTES
    assert facts.size_bytes == 10 * 2**30
    assert "a sparse file: " in "; ".join(facts.problems)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_000_000  # kB


def _bytes_read() -> int:
    figures = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(figures["rchar"])


def test_a_file_read_up_to_the_limit_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.4\n" + b"1 0 obj\n<< >>\nendobj\n" * 1_000_000)
    assert "only 16.0 MB of its 21.0 MB were read" in problems(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp3", ": no such file; correct the path, or start a URL with https://"),
        ("file/below", ": no such file: part of its path is not a directory; correct the path"),
        ("directory", ": is a directory; use --recursive to include its files"),
        ("pipe", ": is a named pipe, which has no content to classify; copy its data to a regular file"),
        ("socket", ": is a socket, which has no content to classify; copy its data to a regular file"),
        (
            "dangling",
            ": is a symbolic link to nowhere, which does not exist; repair the link or leave it out",
        ),
        (
            "circle",
            ": cannot be opened (Too many levels of symbolic links); correct the path or its permissions",
        ),
        ("x" * 300, ": cannot be opened (File name too long); correct the path or its permissions"),
        ("zero\0byte", ": cannot be opened (it contains a null byte); correct the path or its permissions"),
    ],
)
def test_a_path_that_is_not_a_file_is_refused_with_a_remedy(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("directory").mkdir()
    os.mkfifo("pipe")
    Path("dangling").symlink_to("nowhere")
    Path("circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(SourceError) as raised:
            probe(name)
    assert str(raised.value) == display_name(name) + message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "empty source: pass a path or a URL"),
        (
            "\ud800",
            "\\ud800: cannot be opened ('utf-8' codec can't encode character '\\ud800' in position 0:"
            " surrogates not allowed); correct the path or its permissions",
        ),
        ("/dev/zero", "/dev/zero: is a device, which has no content to classify; copy its data to a regular file"),
    ],
)
def test_an_unusable_source_is_refused(source: str, message: str) -> None:
    with pytest.raises(SourceError) as raised:
        probe(source)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain name.txt", "plain name.txt"),
        ("größe.txt", "größe.txt"),
        ("a\x1b[31m\n", "a\\x1b[31m\\n"),
        (os.fsdecode(b"\xff.txt"), "\\xff.txt"),
        ("\ud800.txt", "\\ud800.txt"),
        ("https://user:secret@host/a@b", "https://***@host/a@b"),
    ],
)
def test_a_display_name_has_no_control_characters_or_passwords(source: str, text: str) -> None:
    assert display_name(source) == text


def _avi(path: Path) -> Path:
    write_avi(path, seconds=2, shade=7)
    return path


@pytest.mark.parametrize(("make", "by_library"), [(makers.wav, 30), (makers.mp4, 0), (_avi, 0)])
def test_media_have_the_facts_that_mediainfo_reads_with_all_of_its_parsers(
    make: Any, by_library: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers of WAV that agree with themselves are read by the standard library, others by one parser if it can."""
    chance = random.Random(1)
    path = tmp_path / "media"
    whole = make(path).read_bytes()[:4000]
    read_by_library = 0
    for number in range(90):
        if make is makers.wav:
            makers.wav(path, seconds=chance.randrange(1, 400) / 1000, rate=chance.choice([8000, 11025, 12345, 44100]))
            whole = path.read_bytes()
        damaged = bytearray(whole)
        for _ in range(number % 3):
            damaged[chance.randrange(min(len(whole), 600))] = chance.randrange(256)
        path.write_bytes(damaged[: len(damaged) - chance.choice([0, 0, 5, len(damaged) // 2])])
        facts = probe(str(path))
        head = path.read_bytes()
        read_by_library += content._read_wave(head, len(head)) is not None
        with monkeypatch.context() as patch:
            patch.setattr(content, "_read_wave", lambda head, size: None)
            patch.setattr(formats, "_PARSER_OF_MIME", {})
            assert facts == probe(str(path))
    assert read_by_library >= by_library
