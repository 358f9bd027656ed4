"""Run Celery's own integration tests against a stock worker and one with the agent, and compare the outcomes.

Downloads the sdist of the installed Celery, makes a virtual environment in a temporary directory, and runs both sides
at the same time, each with a Valkey of its own. The worker is that of the tests, on one side with `install(app)`.
Tests whose outcomes differ run once more on both sides, because some depend on timing. Prints a Markdown table; exits
with 1 if a difference remains that `expected.py` does not list, or if most tests fail with a stock worker.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server

from .expected import DIFFERENCES, QUEUE_GUARD

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "morag-queue-tests"
SIDES = ("stock", "agent")
INSTALL_SECONDS = 300
IMPORTED = ("pytest", "pytest-timeout", "cryptography", "sqlalchemy", "django", "pydantic", "python-dateutil", "psutil")
"""What `t/integration` imports, besides Celery."""
IGNORED = (
    "test_backend.py",  # needs an account at a cloud provider
    # Use no worker, need minutes, and when stopped by the limit leave subscriptions that later tests count.
    "test_backend_leak_in_fixture_teardown.py",
    "test_mem_leak_in_exception_handling.py",
)
INI = "[pytest]\npython_classes = test_*\nmarkers =\n    flaky\n    amqp\n    timeout\n"

Outcomes = dict[str, tuple[str, str]]
"""Test id -> passed, failed or skipped, and the last line of the failure."""


def make_venv(directory: Path) -> Path:
    """Return the interpreter of a new virtual environment with the project and the installed Celery, kombu, redis."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, timeout=INSTALL_SECONDS)
    python = directory / "bin" / "python"
    pins = [f"{name}=={version(name)}" for name in ("celery", "kombu", "redis")]
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    subprocess.run([*install, "--quiet", str(ROOT), *pins, *IMPORTED], check=True, timeout=INSTALL_SECONDS)
    return python


def unpack_tests(python: Path, directory: Path) -> None:
    """Put `t/` of the sdist of the installed Celery into `directory`; the sdist is kept in `CACHE`."""
    name = f"celery-{version('celery')}"
    archive = CACHE / f"{name}.tar.gz"
    if not archive.exists():
        download = [str(python), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "celery"]
        command = [*download, "--dest", str(CACHE), f"celery=={version('celery')}"]
        subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.name.startswith(f"{name}/t/")]
        tar.extractall(directory, members, filter="data")
    (directory / name / "t").rename(directory / "t")


def run_side(side: str, python: Path, tests: Sequence[str], given: argparse.Namespace) -> Outcomes:
    """Run the tests against a new Valkey and a new worker, with or without the agent."""
    with Sandbox() as sandbox:
        server = Server(sandbox)
        unpack_tests(python, sandbox.dir)
        (sandbox.dir / "pytest.ini").write_text(INI)
        outcomes = sandbox.dir / "outcomes"
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(sandbox.dir), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
            "TEST_BROKER": server.url,
            "TEST_BACKEND": server.url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(server.port),
            "CELERY_SUITE_SIDE": side,
            "CELERY_SUITE_TEST_SECONDS": str(given.test_seconds),
            "CELERY_SUITE_OUTCOMES": str(outcomes),
        }
        plugins = ["-p", "celery.contrib.pytest", "-p", "tests.celery_suite.plugin", "-p", "no:cacheprovider"]
        argv = [str(python), "-m", "pytest", *plugins, *tests]
        process = sandbox.spawn("pytest", argv, env)
        try:
            process.wait(given.seconds)
        except subprocess.TimeoutExpired as error:
            raise SystemExit(f"{side}: not finished after {given.seconds} s: give more --seconds") from error
        finally:
            if given.logs:
                given.logs.mkdir(parents=True, exist_ok=True)
                shutil.copy(sandbox.log("pytest"), given.logs / f"{side}.log")
        if process.returncode not in (0, 1):  # passed, or some tests failed
            raise SystemExit(f"{side}: pytest ended with {process.returncode}:\n{sandbox.last_lines('pytest')}")
        return read(outcomes, side)


def read(path: Path, side: str) -> Outcomes:
    """A test failed if one of its phases did."""
    outcomes: Outcomes = {}
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        test, message = row["test"].removeprefix("t/integration/"), row["message"]
        if side == "agent" and row["when"] == "teardown" and message.startswith(f"Failed: {QUEUE_GUARD}"):
            continue
        if row["outcome"] != "passed" or test not in outcomes:
            outcomes[test] = (row["outcome"], message)
    return outcomes


def run(python: Path, tests: Sequence[str], given: argparse.Namespace) -> dict[str, Outcomes]:
    with ThreadPoolExecutor() as pool:
        ran = pool.map(lambda side: run_side(side, python, tests, given), SIDES)
        return dict(zip(SIDES, ran, strict=True))


def differences(ran: Mapping[str, Outcomes]) -> list[str]:
    """The tests with different outcomes, "not run" being one."""
    stock, agent = (ran[side] for side in SIDES)
    return sorted(test for test in {*stock, *agent} if _outcome(stock, test) != _outcome(agent, test))


def _outcome(outcomes: Outcomes, test: str) -> str:
    return outcomes.get(test, ("not run", ""))[0]


def table(ran: Mapping[str, Outcomes]) -> Iterator[str]:
    """The lines of a Markdown table, one row for each file."""
    different = differences(ran)
    yield "| file | stock passed | failed | skipped | agent passed | failed | skipped | differences |"
    yield "|---" * 8 + "|"
    for file in (*sorted({test.partition("::")[0] for side in SIDES for test in ran[side]}), ""):
        counts = [
            sum(test.startswith(file) and outcome == wanted for test, (outcome, _) in ran[side].items())
            for side in SIDES
            for wanted in ("passed", "failed", "skipped")
        ]
        cells = [file or "all", *counts, sum(test.startswith(file) for test in different)]
        yield "| " + " | ".join(map(str, cells)) + " |"


def details(ran: Mapping[str, Outcomes]) -> Iterator[str]:
    for test in differences(ran):
        yield f"differs: {test}: {DIFFERENCES.get(test, 'not expected')}"
        yield from (f"  {side}: {' '.join(ran[side].get(test, ('not run', '')))}" for side in SIDES)
    for test, (outcome, message) in sorted(ran["stock"].items()):
        if outcome == "failed" == _outcome(ran["agent"], test):
            yield f"fails on both: {test}: {message}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="only these files of t/integration, as test_tasks.py")
    parser.add_argument("--skip-canvas", action="store_true", help="skip test_canvas.py, which takes most of the time")
    parser.add_argument("--test-seconds", type=int, default=120, help="limit for one test (default: 120)")
    parser.add_argument("--seconds", type=int, default=1800, help="limit for one side (default: 1800)")
    parser.add_argument("--logs", type=Path, help="directory for the output of pytest")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    began = time.monotonic()
    ignored = (*IGNORED, "test_canvas.py") if given.skip_canvas else IGNORED
    tests = [f"t/integration/{file}" for file in given.files] or [
        "t/integration", *(f"--ignore=t/integration/{file}" for file in ignored),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="celery-suite-") as directory:
        python = make_venv(Path(directory))
        ran = run(python, tests, given)
        if again := sorted(set(differences(ran)) - set(DIFFERENCES)):
            second = run(python, [f"t/integration/{test}" for test in again], given)
            ran = {side: ran[side] | second[side] for side in SIDES}
    print(*table(ran), *details(ran), sep="\n")
    print(f"Celery {version('celery')}: {time.monotonic() - began:.0f} s")
    if set(differences(ran)) - set(DIFFERENCES):
        return 1
    passed = sum(outcome == "passed" for outcome, _ in ran["stock"].values())
    if passed * 2 < len(ran["stock"]):
        print("most tests fail with a stock worker: this run says nothing about the agent", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
