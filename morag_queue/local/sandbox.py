"""A temporary directory and its processes; both are removed at the end, even after a crash."""

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

from . import fork_server, reaper
from .fork_server import Process


class Sandbox:
    """A context manager. A reaper process cleans up even if this process is killed.

    `dir` is the working directory of the processes; `<name>.log` in it has the output of one.
    """

    def __init__(self) -> None:
        self.token = token_hex(reaper.TOKEN_LENGTH // 2)
        self.dir = Path(tempfile.mkdtemp(prefix="morag-queue-"))
        # TMPDIR: files that a killed process cannot remove (multiprocessing makes some) are removed with ours.
        # SPT_NOENV: keeps setproctitle, if installed, from overwriting the token with a title.
        self.environment = {reaper.TOKEN: self.token, "TMPDIR": str(self.dir), "SPT_NOENV": "1"}
        self._spawned: list[Process] = []
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", reaper.__file__, self.token, str(self.dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start a process in a new session, so that Ctrl-C on our terminal does not reach it.

        Its pid is its process group. Its output is appended to `<name>.log`.
        """
        with open(self.log(name), "ab") as log:
            process = subprocess.Popen(
                argv,
                cwd=self.dir,
                env={**(os.environ if env is None else env), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._spawned.append(process)
        return process

    def fork(self, name: str, module: str, args: Sequence[str], env: Mapping[str, str]) -> Process:
        """Start `python -m module *args` like `spawn`, but faster: fork a process that has imported it already."""
        log, env = self.log(name), {**env, **self.environment}
        process = fork_server.shared().start(module, args, env=env, cwd=self.dir, stdout=log, stderr=log)
        self._spawned.append(process)
        return process

    def log(self, name: str) -> Path:
        return self.dir / f"{name}.log"

    def last_lines(self, name: str, count: int = 15) -> str:
        """The last lines of a process's output, for error messages."""
        try:
            return "\n".join(self.log(name).read_text("utf-8", "replace").splitlines()[-count:])
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        """Kill the remaining processes and remove the directory. Safe to call twice."""
        if self._reaper.stdin is None or self._reaper.stdin.closed:
            return
        reaper.sweep(self.token)
        for process in self._spawned:
            process.kill()  # sweep misses a process that overwrote its environment with a title
            process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
        self._reaper.stdin.close()
        self._reaper.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
