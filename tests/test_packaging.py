"""The wheel and the sdist, and what runs where only the wheel and its requirements are installed."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest

from morag_queue.local.sandbox import Sandbox
from tests.test_checks import ROOT, required_distributions

pytestmark = pytest.mark.xdist_group("packaging")  # builds once

BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"

APP = """
import os
from celery import Celery
import morag_queue
from morag_queue.agent import install

app = Celery("bare", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
install(app)
app.conf.task_routes = (morag_queue.route_task,)

@app.task(name="morag.worker.process_file_task")
def process_file(path, content_type, options):
    return options["answer"]
"""
PRODUCE = """
import asyncio, json, sys
from app import app, process_file
from morag_queue import IntelligentTaskClassifier, PriorityQueueManager, WorkerRegistry

source = sys.argv[1]
answer = process_file.delay(source, "document", {"answer": 42}).get(timeout=60)
found = asyncio.run(IntelligentTaskClassifier().classify_task(source))
print(json.dumps([answer, found.classification.content_type, found.classification.model_dump_json()]))
"""


def build(kind: str, tree: Path, out: Path) -> Path:
    """Build "wheel" or "sdist" from a source tree without isolation, so that nothing is downloaded."""
    out.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", BUILD, f"build_{kind}", str(out)], cwd=tree, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


def package_files() -> set[str]:
    files = (path for path in (ROOT / "morag_queue").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT)) for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that it builds."""
    directory = tmp_path_factory.mktemp("build")
    tree = directory / "tree"
    shutil.copytree(ROOT / "morag_queue", tree / "morag_queue", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    sdist = build("sdist", tree, directory / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(directory / "unpacked", filter="data")
    (unpacked,) = (directory / "unpacked").iterdir()
    return sdist, build("wheel", unpacked, directory / "wheel")


@pytest.fixture(scope="module")
def bare(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: the Python of an environment as `pip install 'morag-queue[extra]'` makes it.

    The requirements are links to the installed ones, so that nothing is downloaded.
    """

    def make(extra: str) -> Path:
        home = tmp_path_factory.mktemp(f"bare-{extra}")
        venv.create(home, symlinks=True)
        (site,) = home.glob("lib/python*/site-packages")
        with zipfile.ZipFile(built[1]) as wheel:
            wheel.extractall(site)
        for name in required_distributions("morag-queue", extra) - {"morag-queue"}:
            files = distribution(name).files or ()
            for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
        return home / "bin" / "python"

    return make


def test_sdist_and_wheel_hold_every_file_of_the_package(built: tuple[Path, Path]) -> None:
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as unzipped:
        installed = {name for name in unzipped.namelist() if ".dist-info/" not in name}
    assert "morag_queue/broker/lua/claim.lua" in installed
    assert installed == package_files()
    assert package_files() | {"README.md", "LICENSE", "pyproject.toml"} <= packed


def test_worker_and_producer_run_with_the_base_installation(
    bare: Callable[[str], Path], valkey: str, tmp_path: Path
) -> None:
    python = bare("")
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7\n")
    env = {"PATH": os.environ["PATH"], "REDIS_URL": valkey, "PYTHONPATH": str(tmp_path), "WORKER_TYPE": "cpu"}
    with Sandbox() as sandbox:
        sandbox.spawn("worker", [str(python), "-m", "celery", "-A", "app", "worker", "-n", "cpu-1@%h", "-c", "1"], env)
        done = subprocess.run(
            [python, "-c", PRODUCE, tmp_path / "a.pdf"], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + sandbox.last_lines("worker", 40)
    answer, content_type, classification = json.loads(done.stdout)
    assert (answer, content_type) == (42, "document")
    assert "pages cannot be read: pypdf is not installed; run: pip install 'morag-queue[probe]'" in classification


def test_without_the_extra_the_command_says_what_to_install(bare: Callable[[str], Path]) -> None:
    command = [bare(""), "-m", "morag_queue", "stats", "--json"]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    message = "typer is not installed; run: pip install 'morag-queue[cli]'"
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")
    assert json.loads(done.stdout) == {"error": message, "exit": 1}


def test_the_command_runs_with_its_extra(bare: Callable[[str], Path], tmp_path: Path) -> None:
    python = bare("cli")
    for arguments, text in (
        (["--version"], "morag-queue "),
        (["dashboard"], '"panels"'),
        (["watch", "--help"], "Usage"),
    ):
        command = [python, "-m", "morag_queue", *arguments]
        done = subprocess.run(command, env={}, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert text in done.stdout
    done = subprocess.run([python, "-m", "morag_queue", "demo"], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'morag-queue[demo]'" in done.stderr
