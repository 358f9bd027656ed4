"""A temporary directory and the processes that live in it: at the end, however it comes, both are gone."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Self

from . import guard, prefork
from .prefork import Process


class Nest:
    """Use as a context manager. A guard process clears it away even when this one is killed.

    `dir` holds whatever the processes write; `<name>.log` in it is what a process printed.
    """

    def __init__(self) -> None:
        self.token = token_hex(guard.TOKEN_LENGTH // 2)
        self.dir = Path(tempfile.mkdtemp(prefix="morag-queue-"))
        # TMPDIR: what a killed process cannot remove (multiprocessing has a directory each) goes with ours.
        # SPT_NOENV: setproctitle, where it is installed, would write its title over the token.
        self._mark = {guard.TOKEN: self.token, "TMPDIR": str(self.dir), "SPT_NOENV": "1"}
        self._spawned: list[Process] = []
        self._guard = subprocess.Popen(
            [sys.executable, "-I", guard.__file__, self.token, str(self.dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Starts a process in a session of its own, so that a Ctrl-C on our terminal is ours alone.

        Its process number is its group's. What it prints is added to `<name>.log`.
        """
        with open(self.log(name), "ab") as log:
            process = subprocess.Popen(
                argv,
                cwd=self.dir,
                env={**(os.environ if env is None else env), **self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._spawned.append(process)
        return process

    def fork(self, name: str, module: str, args: Sequence[str], env: Mapping[str, str]) -> Process:
        """Starts `python -m module *args` as `spawn` does, sooner: in a fork of a process that has it imported."""
        log, env = self.log(name), {**env, **self._mark}
        process = prefork.shared().start(module, args, env=env, cwd=self.dir, stdout=log, stderr=log)
        self._spawned.append(process)
        return process

    def log(self, name: str) -> Path:
        return self.dir / f"{name}.log"

    def last_lines(self, name: str, count: int = 15) -> str:
        """The end of what a process printed, for a message about its failure."""
        try:
            return "\n".join(self.log(name).read_text("utf-8", "replace").splitlines()[-count:])
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        """Kills what still runs, removes the directory. Safe to call twice."""
        if self._guard.stdin is None or self._guard.stdin.closed:
            return
        guard.sweep(self.token)
        for process in self._spawned:
            process.kill()  # one that wrote its title over its environment is not found by it
            process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
        self._guard.stdin.close()
        self._guard.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
