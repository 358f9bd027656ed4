"""Run ruff, its formatter, mypy and import-linter as tests, so that one command checks everything."""

import json
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent

TOOLS = Path(sys.executable).parent

CHECKS = {
    "ruff": ["ruff", "check"],
    "format": ["ruff", "format", "--check"],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports"],
}


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_static_check(check: str) -> None:
    tool, *arguments = CHECKS[check]
    done = subprocess.run([TOOLS / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


IMPORT_ALL = """
import importlib, json, pkgutil, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # None: an import raises ModuleNotFoundError
import morag_queue
for module in pkgutil.walk_packages(morag_queue.__path__, "morag_queue."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def required(name: str, extra: str, seen: dict[str, None]) -> dict[str, None]:
    """Collect the distributions that `pip install name[extra]` installs."""
    seen[canonicalize_name(name)] = None
    for one in map(Requirement, requires(name) or ()):
        wanted = one.marker is None or one.marker.evaluate({"extra": extra})
        if wanted and canonicalize_name(one.name) not in seen:
            for more in one.extras or {""}:
                required(one.name, more, seen)
    return seen


@pytest.mark.slow
def test_the_package_imports_only_its_declared_dependencies() -> None:
    installed = required("morag-queue", "demo", {})
    owners = packages_distributions().items()
    others = [name for name, by in owners if installed.keys().isdisjoint(map(canonicalize_name, by))]
    assert "pytest" in others
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps(others)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"REDIS_URL": "redis://127.0.0.1:1/0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
