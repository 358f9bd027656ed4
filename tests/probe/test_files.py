"""Expanding paths to files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from morag_queue.errors import SourceError
from morag_queue.probe import expand


@pytest.fixture(autouse=True)
def _in_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def expanded(*paths: str, recursive: bool = True) -> list[str]:
    return [str(item) for item in expand(paths, recursive)]


def test_files_and_urls_are_yielded_unchanged() -> None:
    make("a.mp3")
    paths = ("a.mp3", "missing.mp3", "https://example.org/", "zero\0byte", "")
    assert expanded(*paths, recursive=False) == list(paths)


def test_a_directory_without_recursive_is_refused_and_the_message_names_the_flag() -> None:
    make("media/a.mp3")
    (error,) = expand(["media"], recursive=False)
    assert isinstance(error, SourceError)
    assert str(error) == "media: is a directory; use --recursive to include its files"
    assert error.source == "media"


def test_a_directory_yields_all_files_below_it_sorted_by_name() -> None:
    make("m/b.mp3", "m/a/z.mp3", "m/a/y/x.mp3", "m/c/a.mp3", "m/C.mp3", "other.mp3")
    assert expanded("m") == ["m/C.mp3", "m/a/y/x.mp3", "m/a/z.mp3", "m/b.mp3", "m/c/a.mp3"]


def test_hidden_files_are_skipped_unless_given_as_arguments() -> None:
    make("m/.git/config", "m/.DS_Store", "m/a.mp3", ".hidden/b.mp3")
    assert expanded("m", "m/.DS_Store", ".hidden") == ["m/a.mp3", "m/.DS_Store", ".hidden/b.mp3"]


def test_links_to_directories_are_skipped_unless_given_as_arguments() -> None:
    make("m/a.mp3", "elsewhere/b.mp3")
    os.symlink("..", "m/loop")
    os.symlink("../elsewhere", "m/outside")
    os.symlink("../elsewhere/b.mp3", "m/file")
    os.symlink("elsewhere", "named")
    assert expanded("m", "named") == ["m/a.mp3", "m/file", "named/b.mp3"]


def test_broken_links_are_yielded_for_probe_to_report() -> None:
    make("m/a.mp3")
    os.symlink("nowhere", "m/dangling")
    os.symlink("circle", "m/circle")
    assert expanded("m") == ["m/a.mp3", "m/circle", "m/dangling"]


def test_names_that_are_not_utf_8_are_yielded() -> None:
    make("m/a.mp3")
    os.rename(b"m/a.mp3", b"m/\xff\n.mp3")
    assert [os.fsencode(name) for name in expanded("m")] == [b"m/\xff\n.mp3"]


def test_directories_may_be_nested_deeper_than_the_recursion_limit() -> None:
    top = Path("m")
    top.mkdir()
    home = os.open(".", os.O_RDONLY)
    try:
        os.chdir("m")
        for _ in range(1500):
            os.mkdir("d")
            os.chdir("d")
        Path("a").touch()
        os.fchdir(home)
        assert expanded("m") == ["m/" + "d/" * 1500 + "a"]
    finally:
        os.fchdir(home)
        os.close(home)
        subprocess.run(["rm", "-rf", "m"], check=True)


def test_an_unreadable_directory_is_reported_and_the_rest_is_yielded(tmp_path: Path) -> None:
    make("m/a.mp3", "m/closed/b.mp3", "m/d.mp3")
    Path("m/closed").chmod(0)
    tmp_path.chmod(0o755)
    code = "import os; from morag_queue.probe import expand; os.geteuid() or os.setuid(65534); "
    code += "print(*expand(['m'], True), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "m/a.mp3",
        "m/closed: cannot read the directory (Permission denied); correct its permissions",
        "m/d.mp3",
    ]
