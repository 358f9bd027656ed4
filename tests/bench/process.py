"""Run commands and scripts as users do, each in a new process, and time them from outside."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

BIN = Path(sys.executable).parent
MORAG_QUEUE, CELERY = str(BIN / "morag-queue"), str(BIN / "celery")


def seconds(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: str = "", statuses: tuple[int, ...] = (0,)
) -> float:
    """Return the time from the start of the process to its end. Raises RuntimeError for another exit status."""
    began = perf_counter()
    _run(command, env, cwd, stdin, statuses)
    return perf_counter() - began


def answer(script: str, env: Mapping[str, str], cwd: Path, *arguments: str) -> Any:
    """Return what a Python script prints as JSON."""
    return json.loads(_run([sys.executable, "-c", script, *arguments], env, cwd))


def _run(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: str = "", statuses: tuple[int, ...] = (0,)
) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode not in statuses:
        raise RuntimeError(f"{command[:4]} exited with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
