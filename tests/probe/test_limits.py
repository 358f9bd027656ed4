"""What a parser may have of a file, and of time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from morag_queue.probe import opened, probe, timed
from morag_queue.probe.opened import Bounded
from tests.probe import makers


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Bounded]:
    path = tmp_path / "file"
    makers.sparse(path, 100 * 2**20)
    with Bounded(str(path)) as file:
        yield file


def test_a_parser_sees_the_end_of_the_file_after_its_share(file: Bounded) -> None:
    assert len(file.read()) == opened.BYTES
    assert not file.out_of_share
    assert file.read(1) == b""
    assert file.out_of_share


def test_a_size_from_a_broken_header_is_not_believed(file: Bounded) -> None:
    assert len(file.read(2**62)) == opened.BYTES


def test_a_parser_that_reads_in_a_circle_comes_to_an_end(file: Bounded) -> None:
    rounds = 0
    while file.read(50_000):
        file.seek(0)
        rounds += 1
    assert rounds == opened.BYTES // 50_000
    assert file.out_of_share


def test_a_search_may_have_a_smaller_share(file: Bounded) -> None:
    file.limit(1000)
    assert len(file.read()) == 1000


def test_a_parser_whose_time_is_up_sees_the_end_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "SECONDS", -1.0)
    facts = probe(str(makers.pdf(tmp_path / "a.pdf")))
    assert facts.problems == (f"only 0 bytes of its {facts.size_bytes} bytes were read",)


def test_a_parser_that_computes_without_end_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "SECONDS", 0.01)
    end = threading.Event()
    with pytest.raises(TimeoutError, match=r"no end after 0\.01 s"):
        timed.in_time(end.wait)
    end.set()


def test_what_a_parser_gives_or_raises_comes_through() -> None:
    assert timed.in_time(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        timed.in_time(lambda: 1 // 0)
