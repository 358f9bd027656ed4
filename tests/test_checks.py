"""Run ruff, its formatter, mypy --strict and import-linter as tests, and check the declared dependencies."""

import json
import subprocess
import sys
from importlib.metadata import metadata, packages_distributions, requires
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
missing, prefixes = map(json.loads, sys.argv[1:])
sys.modules.update(dict.fromkeys(missing))  # None makes an import fail as if the module were missing
import morag_queue
for module in pkgutil.walk_packages(morag_queue.__path__, "morag_queue.", onerror=lambda _: None):
    if not module.name.endswith("__main__") and not module.name.startswith(tuple(prefixes)):
        importlib.import_module(module.name)
"""
NEEDS_AN_EXTRA = {
    "": ["cli", "view", "watch.log", "watch.metrics"],
    "cli": [],
    "demo": [],
}
"""The modules that cannot be imported in an installation with this extra."""


def required_distributions(name: str, extra: str, seen: dict[tuple[str, str], None] | None = None) -> set[str]:
    """Return the distributions that `pip install name[extra]` installs."""
    seen = {} if seen is None else seen
    seen[canonicalize_name(name), extra] = None
    for requirement in map(Requirement, requires(name) or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for nested_extra in requirement.extras or {""}:
                if (canonicalize_name(requirement.name), nested_extra) not in seen:
                    required_distributions(requirement.name, nested_extra, seen)
    return {distribution for distribution, _ in seen}


@pytest.mark.slow
@pytest.mark.parametrize("extra", NEEDS_AN_EXTRA)
def test_the_package_imports_only_what_it_declares_as_dependencies(extra: str) -> None:
    installed = required_distributions("morag-queue", extra)
    excluded = [f"morag_queue.{name}" for name in NEEDS_AN_EXTRA[extra]]
    owners = packages_distributions().items()
    others = [name for name, by in owners if installed.isdisjoint(map(canonicalize_name, by))]
    assert "pytest" in others
    arguments = ["-c", IMPORT_ALL, json.dumps(others), json.dumps(excluded)]
    env = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


PERMISSIVE = ("MIT", "BSD", "Apache", "ISC", "PSF", "Python Software Foundation")


def license_of(distribution: str) -> str:
    found = metadata(distribution)
    classifiers = [line for line in found.get_all("Classifier") or () if line.startswith("License ::")]
    return " / ".join(filter(None, [found["License-Expression"], found["License"], *classifiers]))


def test_all_dependencies_have_permissive_licenses() -> None:
    """README names the licenses: a dependency with another one is a decision."""
    licenses = {name: license_of(name) for name in required_distributions("morag-queue", "demo")}
    assert "celery" in licenses
    assert [name for name, text in licenses.items() if not any(kind in text for kind in PERMISSIVE)] == []
