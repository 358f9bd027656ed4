"""Probing many sources: order, errors as results, and parsers that crash."""

import itertools
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError
from morag_queue.probe import expand, probe, probe_many
from morag_queue.probe.workers import Prober, _Helper
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


def test_helpers_probe_while_the_caller_does_other_work(media: Path) -> None:
    """Each helper keeps its process, and has the next answers ready when they are asked for."""
    sources = [str(source) for source in expand([str(media)], recursive=True)]
    with Prober(workers=2) as prober:
        started = [prober.start(source) for source in sources[:200]]
        first = [probing.result() for probing in started]
        helpers = _children()
        started = [prober.start(source) for source in sources[200:]]
        second = [probing.result() for probing in started]
        assert _children() == helpers
    assert [str(result) for result in first + second] == [str(probed_alone(source)) for source in sources]


def test_a_caller_that_asks_for_no_result_is_not_blocked(tmp_path: Path) -> None:
    """Requests and answers that are larger than the pipes between the processes."""
    directory = tmp_path / ("d" * 250) / ("e" * 250) / ("f" * 250)
    directory.mkdir(parents=True)
    (directory / "a.txt").write_text("Hello")
    with Prober(workers=2) as prober:
        started = [prober.start(str(directory / "a.txt")) for _ in range(1000)]
        assert {probing.result().characters for probing in started} == {5}  # type: ignore[union-attr]


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


def _make_deadly(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Patch helpers to be killed by each file whose name ends in .deadly, as by a crash in a parser."""
    receive = _Helper.receive

    def deadly(self: _Helper) -> Facts | SourceError:
        if str(self._sent[0].source).endswith(".deadly"):
            self._process.send_signal(number)
            self._process.wait()
            raise EOFError
        return receive(self)

    monkeypatch.setattr(_Helper, "receive", deadly)


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (signal.SIGSEGV, "crashed (signal 11)"),
        (signal.SIGALRM, "ran for more than 8 s"),
    ],
)
def test_a_file_that_kills_its_helper_does_not_affect_other_files(
    number: signal.Signals, failure: str, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_deadly(monkeypatch, number)
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


def test_a_helper_whose_parser_hangs_is_killed() -> None:
    code = """
from morag_queue.probe import workers
workers.FILE_SECONDS = 1
workers._probe_one = lambda source, declared: workers.signal.pause()
workers.main()
"""
    request = pickle.dumps([("a.mp4", None)])
    done = subprocess.run([sys.executable, "-c", code], input=request, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, b"")


def test_a_helper_ends_when_its_parent_is_killed(media: Path) -> None:
    code = f"""
import os, signal
from morag_queue.probe import Prober
prober = Prober(2)
started = [prober.start({str(media / "001.wav")!r}) for _ in range(500)]
started[0].result()
print(*(helper._process.pid for helper in prober._helpers), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # The helpers hold the pipe of stderr, so `run` waits for their end.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (len(done.stdout.split()), done.returncode, done.stderr) == (2, -signal.SIGKILL, "")
