"""Run ruff, its formatter, mypy --strict and import-linter as tests, and check the declared dependencies."""

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
    "ruff finds no violations": ["ruff", "check"],
    "all files are formatted": ["ruff", "format", "--check"],
    "mypy finds no type errors": ["mypy"],
    "a layer imports only from layers below it": ["lint-imports"],
}


@pytest.mark.slow
@pytest.mark.parametrize("claim", CHECKS)
def test_check(claim: str) -> None:
    tool, *arguments = CHECKS[claim]
    done = subprocess.run([TOOLS / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"not true: {claim}\n{done.stdout}{done.stderr}"


IMPORT_ALL = """
import importlib, json, pkgutil, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # None makes an import fail as if the module were missing
import morag_queue
for module in pkgutil.walk_packages(morag_queue.__path__, "morag_queue."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def required_distributions(name: str, extra: str, seen: dict[str, None]) -> dict[str, None]:
    """Return the distributions that `pip install name[extra]` installs."""
    seen[canonicalize_name(name)] = None
    for requirement in map(Requirement, requires(name) or ()):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if applies and canonicalize_name(requirement.name) not in seen:
            for nested_extra in requirement.extras or {""}:
                required_distributions(requirement.name, nested_extra, seen)
    return seen


@pytest.mark.slow
def test_the_package_imports_only_what_it_declares_as_dependencies() -> None:
    installed = required_distributions("morag-queue", "demo", {})
    owners = packages_distributions().items()
    others = [name for name, by in owners if installed.keys().isdisjoint(map(canonicalize_name, by))]
    assert "pytest" in others
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps(others)], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"REDIS_URL": "redis://127.0.0.1:1/0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
