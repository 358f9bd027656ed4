"""Run a part of the suite under other versions of Celery, kombu and redis-py: `python -m tests.matrix`.

Each row gets its own virtual environment in a temporary directory, with the project, its test requirements and the
versions of the row. Prints a Markdown table; exits with 1 unless every row passes. `--row` selects rows by a part of
their name, `--quick` runs only the tests of a kill and of the claim. Needs `uv`, which can install the lowest versions.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ("tests/agent", "tests/broker", "tests/e2e", "tests/faults", "tests/cli/test_submit.py", "tests/operations")
QUICK = ("tests/agent", "tests/broker/test_claim.py", "tests/e2e/test_brokers.py", "tests/e2e/test_defaults.py")
INSTALL_SECONDS = 180
ROW_SECONDS = 420
_UNCLOSED = "ignore::pytest.PytestUnraisableExceptionWarning"  # redis-py before 5.3 leaves sockets to the collector
SHOWN = ("celery", "kombu", "redis", "typer", "rich", "pydantic")


@dataclass(frozen=True)
class Row:
    """Requirements besides the project's; `lowest`: of all others, the lowest versions that the project allows."""

    name: str
    pins: tuple[str, ...]
    lowest: bool = False


ROWS = (
    Row("5.4 oldest", ("celery==5.4.0", "kombu==5.4.0", "redis==5.1.1"), lowest=True),
    Row("5.4 newest", ("celery==5.4.*",)),
    Row("5.5 oldest", ("celery==5.5.0", "redis==5.1.1")),
    Row("5.5 newest", ("celery==5.5.3",)),
    Row("5.6 oldest", ("celery==5.6.0", "kombu==5.6.0", "redis==5.2.1")),
    Row("5.6 newest", ("celery==5.6.*",)),
    Row("5.7 oldest", ("celery==5.7.0", "kombu==5.7.0", "redis==6.4.0")),
    Row("5.7 newest", ("celery==5.7.*",)),
)


@dataclass(frozen=True)
class Outcome:
    """What a row printed: versions by distribution, and pytest's summary or the reason why there is none."""

    row: Row
    versions: dict[str, str]
    summary: str
    passed: bool

    def cells(self) -> list[str]:
        return [self.row.name, *(self.versions.get(name, "–") for name in SHOWN), self.summary]


def run_row(row: Row, directory: Path, tests: Sequence[str], options: Sequence[str]) -> Outcome:
    """Install the row in `directory` and run the tests in it."""
    python = directory / "bin" / "python"
    resolution = ["--resolution", "lowest-direct"] if row.lowest else []
    try:
        _run(["uv", "venv", "--quiet", "--python", sys.executable, str(directory)], INSTALL_SECONDS)
        install = ["uv", "pip", "install", "--quiet", "--python", str(python), *resolution]
        _run([*install, f"{ROOT}[test]", *row.pins], INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return Outcome(row, {}, "cannot be installed", passed=False)
    listed = _run(["uv", "pip", "freeze", "--python", str(python)], INSTALL_SECONDS)
    versions = dict(line.split("==") for line in listed.splitlines() if line.count("==") == 1)
    path = {"PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]])}
    try:
        ran = subprocess.run(
            [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-W", _UNCLOSED, *options, *tests],
            cwd=ROOT, env=os.environ | path, timeout=ROW_SECONDS, text=True, stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome(row, versions, f"not finished after {ROW_SECONDS} s", passed=False)
    if ran.returncode:
        print(ran.stdout, file=sys.stderr)
    *_, last = ran.stdout.strip().splitlines() or [""]
    return Outcome(row, versions, last.strip("= ") or "no tests ran", passed=ran.returncode == 0)


def _run(command: Sequence[str], seconds: float) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds).stdout


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield "| Celery | " + " | ".join(SHOWN) + " | tests |"
    yield "|---" * (len(SHOWN) + 2) + "|"
    for outcome in outcomes:
        yield "| " + " | ".join(outcome.cells()) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", default=[], help="part of the name of a row; may be repeated")
    parser.add_argument("--quick", action="store_true", help="only the tests of the claim")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("tests", nargs="*", help="run these tests instead")
    given, options = parser.parse_known_args()  # options of pytest in one word, such as -n2
    rows = [row for row in ROWS if not given.row or any(part in row.name for part in given.row)]
    if given.list or not rows:
        print(*(f"{row.name}: {', '.join(row.pins)}" for row in ROWS), sep="\n")
        return 0 if given.list else 2
    outcomes = []
    for row in rows:
        with tempfile.TemporaryDirectory(prefix="matrix-") as directory:
            outcomes.append(run_row(row, Path(directory), given.tests or (QUICK if given.quick else TESTS), options))
        print("| " + " | ".join(outcomes[-1].cells()) + " |", file=sys.stderr, flush=True)
    print(*table(outcomes), sep="\n")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
