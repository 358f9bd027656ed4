"""Limits on the bytes and the time of a parser."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from morag_queue.probe import content, files, probe
from morag_queue.probe.files import BoundedFile
from tests.probe import makers


@pytest.fixture
def file(tmp_path: Path) -> Iterator[BoundedFile]:
    path = tmp_path / "file"
    makers.sparse(path, 100 * 2**20)
    with BoundedFile(str(path)) as file:
        yield file


def test_a_parser_gets_end_of_file_at_the_byte_limit(file: BoundedFile) -> None:
    assert len(file.read()) == files.MAX_BYTES
    assert not file.limit_reached
    assert file.read(1) == b""
    assert file.limit_reached


def test_a_read_larger_than_the_limit_is_cut_to_the_limit(file: BoundedFile) -> None:
    assert len(file.read(2**62)) == files.MAX_BYTES


def test_a_parser_that_reads_in_a_loop_reaches_the_limit(file: BoundedFile) -> None:
    rounds = 0
    while file.read(50_000):
        file.seek(0)
        rounds += 1
    assert rounds == files.MAX_BYTES // 50_000
    assert file.limit_reached


def test_the_limit_can_be_lowered(file: BoundedFile) -> None:
    file.limit(1000)
    assert len(file.read()) == 1000


def test_a_parser_gets_end_of_file_at_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SECONDS", -1.0)
    facts = probe(str(makers.pdf(tmp_path / "a.pdf")))
    assert facts.problems == (f"only 0 bytes of its {facts.size_bytes} bytes were read",)


def test_a_parser_that_never_returns_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "PARSER_SECONDS", 0.01)
    end = threading.Event()
    with pytest.raises(TimeoutError, match=r"did not finish within 0\.01 s"):
        content.run_with_timeout(end.wait)
    end.set()


def test_the_result_or_exception_of_a_parser_is_passed_on() -> None:
    assert content.run_with_timeout(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        content.run_with_timeout(lambda: 1 // 0)
