"""Ruff, its formatter, mypy --strict, import-linter and what is installed, as tests: one command checks everything."""

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
    "ruff finds nothing": ["ruff", "check"],
    "everything is formatted": ["ruff", "format", "--check"],
    "the types hold": ["mypy"],
    "a layer imports from those below it only": ["lint-imports"],
}


@pytest.mark.slow
@pytest.mark.parametrize("what", CHECKS)
def test_check(what: str) -> None:
    tool, *arguments = CHECKS[what]
    done = subprocess.run([TOOLS / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{what}: no\n{done.stdout}{done.stderr}"


IMPORT_ALL = """
import importlib, json, pkgutil, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # None: whoever imports it is told that it is not there
import morag_queue
for module in pkgutil.walk_packages(morag_queue.__path__, "morag_queue."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def needed(name: str, extra: str, seen: dict[str, None]) -> dict[str, None]:
    """The distributions that `pip install name[extra]` brings."""
    seen[canonicalize_name(name)] = None
    for one in map(Requirement, requires(name) or ()):
        wanted = one.marker is None or one.marker.evaluate({"extra": extra})
        if wanted and canonicalize_name(one.name) not in seen:
            for more in one.extras or {""}:
                needed(one.name, more, seen)
    return seen


@pytest.mark.slow
def test_nothing_is_imported_that_an_installation_does_not_bring() -> None:
    brought = needed("morag-queue", "demo", {})
    owners = packages_distributions().items()
    others = [name for name, by in owners if brought.keys().isdisjoint(map(canonicalize_name, by))]
    assert "pytest" in others
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps(others)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"REDIS_URL": "redis://127.0.0.1:1/0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
