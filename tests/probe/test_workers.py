"""Probing many sources: order, errors as results, and parsers that crash."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError
from morag_queue.probe import expand, probe, probe_many
from morag_queue.probe.workers import _Worker
from tests.probe import makers

pytestmark = pytest.mark.xdist_group("media")  # generate the media once


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make 250 files of five kinds and 50 broken links."""
    top = tmp_path_factory.mktemp("media")
    for n in range(50):
        makers.wav(top / f"{n:03}.wav", seconds=n / 10)
        makers.png(top / f"{n:03}.png", width=n + 1)
        makers.pdf(top / f"{n:03}.pdf", pages=n % 5 + 1)
        makers.docx(top / f"{n:03}.docx", pages=n + 1)
        (top / f"{n:03}.txt").write_text("x" * n)
        (top / f"{n:03}.z").symlink_to("nowhere")
    return top


def probed_alone(source: str) -> Facts | str:
    try:
        return probe(source)
    except SourceError as error:
        return str(error)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_do_not_depend_on_the_number_of_workers(media: Path, workers: int) -> None:
    sources = [str(source) for source in expand([str(media)], recursive=True)]
    results = [
        str(result) if isinstance(result, SourceError) else result for result in probe_many(sources, workers=workers)
    ]
    assert len(results) == 300
    assert results == [probed_alone(source) for source in sources]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_are_results_with_their_source(media: Path, workers: int) -> None:
    earlier_error = SourceError("from before", source="x")
    sources = [earlier_error, str(media / "000.wav"), "ftp://example.org/", str(media)] * 30
    results = list(probe_many(sources, workers=workers))
    assert [type(result) for result in results] == [SourceError, Facts, SourceError, SourceError] * 30
    errors = [result for result in results if isinstance(result, SourceError)]
    assert [error.source for error in errors] == ["x", "ftp://example.org/", str(media)] * 30
    assert {str(error).partition(": ")[2] for error in errors[2::3]} == {
        "is a directory; use --recursive to include its files"
    }


def test_on_done_is_called_with_each_result(media: Path) -> None:
    reported: list[Facts | SourceError] = []
    results = list(probe_many(expand([str(media)], recursive=True), workers=2, on_done=reported.append))
    assert reported == results


def test_the_declared_type_reaches_the_workers(media: Path) -> None:
    sources = [str(media / "000.png")] * 100
    results = list(probe_many(sources, workers=2, declared=ContentType.AUDIO))
    assert {result.declared_type for result in results if isinstance(result, Facts)} == {ContentType.AUDIO}


def test_sources_are_read_lazily_and_workers_end_with_the_iterator(media: Path) -> None:
    before = _children()  # includes the server that the tests share
    read = itertools.count()
    sources = (str(media / "001.txt") for _ in read)  # endless
    results = probe_many(sources, workers=2)
    first = list(itertools.islice(results, 100))
    results.close()  # type: ignore[attr-defined]
    assert {type(result) for result in first} == {Facts}
    assert next(read) < 1000
    assert _children() == before


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_no_sources_give_no_results() -> None:
    assert list(probe_many([])) == []


def test_probing_works_in_a_program_read_from_stdin(media: Path) -> None:
    code = f"""
from morag_queue.probe import expand, probe_many
print(sum(1 for _ in probe_many(expand([{str(media)!r}], True), workers=2)))
"""
    done = subprocess.run([sys.executable], input=code, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("300\n", "")


def test_a_module_in_the_current_directory_does_not_shadow_a_library(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert len(list(probe_many([str(media / "000.txt")] * 100, workers=2))) == 100


class _DeadlyFiles:
    """Patch workers to be killed by each file whose name ends in .deadly, as by a crash in a parser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
        receive = _Worker.receive
        send = _Worker.send
        waiting: dict[int, Iterator[str | SourceError]] = {}

        def remembered(self: _Worker, sources: list[str | SourceError], declared: ContentType | None) -> None:
            waiting[id(self)] = iter(sources)
            send(self, sources, declared)

        def deadly(self: _Worker) -> Facts | SourceError:
            if str(next(waiting[id(self)])).endswith(".deadly"):
                self._process.send_signal(number)
                self._process.wait()
                raise EOFError
            return receive(self)

        monkeypatch.setattr(_Worker, "send", remembered)
        monkeypatch.setattr(_Worker, "receive", deadly)


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (signal.SIGSEGV, "crashed (signal 11)"),
        (signal.SIGALRM, "ran for more than 8 s"),
    ],
)
def test_a_file_that_kills_its_worker_does_not_affect_other_files(
    number: signal.Signals, failure: str, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _DeadlyFiles(monkeypatch, number)
    sources = [str(media / f"{n % 50:03}.png") for n in range(200)]
    for place in (100, 101, 130):
        deadly = tmp_path / f"{place}.png.deadly"
        deadly.touch()
        sources[place] = str(deadly)
    results = list(probe_many(sources, workers=2))
    dead = [n for n, result in enumerate(results) if isinstance(result, Facts) and result.width is None]
    assert dead == [100, 101, 130]
    assert {result.source for result in results if isinstance(result, Facts)} == set(sources)
    for place in dead:
        result = results[place]
        assert isinstance(result, Facts)
        assert result.problems == (f"its content was not read, because the parser {failure}",)
