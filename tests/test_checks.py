"""Ruff, its formatter, mypy --strict and import-linter, as tests: one command checks everything."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TOOLS = Path(sys.executable).parent

CHECKS = {
    "ruff finds nothing": ["ruff", "check"],
    "everything is formatted": ["ruff", "format", "--check"],
    "the types hold": ["mypy"],
    "a layer imports from those below it only": ["lint-imports"],
}


@pytest.mark.parametrize("what", CHECKS)
def test_check(what: str) -> None:
    tool, *arguments = CHECKS[what]
    done = subprocess.run([TOOLS / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{what}: no\n{done.stdout}{done.stderr}"
