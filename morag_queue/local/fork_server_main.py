"""The process behind `ForkServer`: import what workers need once, then fork a child for each request.

Run as `python -m morag_queue.local.fork_server_main FD`, with FD a Unix stream socket. Each request and each answer is
one line of JSON. Forking is safe because the process has no threads and no connection but that socket. It exits when
the other end of the socket closes; its children live on until the reaper of their sandbox kills them.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from . import reaper

PRELOAD = (
    *("celery.__main__", "celery.bin.celery", "celery.apps.worker", "celery.concurrency.prefork"),
    *("celery.backends.redis", "celery.events.state", "celery.fixups", "celery.loaders.app"),
    *("celery.worker.autoscale", "celery.worker.components", "celery.worker.consumer", "celery.worker.control"),
    *("celery.worker.loops", "celery.worker.strategy", "celery.app.control", "celery.app.events", "celery.app.log"),
    *("kombu.transport.redis", "kombu.pidbox", "kombu.asynchronous.hub", "billiard.pool", "redis.sentinel"),
    *("morag_queue.agent", "morag_queue.local.work", "morag_queue.cli", "morag_queue.cli.watch"),
    "morag_queue.watch.loop",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One child: `python -m module *args` in `cwd` with environment `env`; output is appended to the files."""

    module: str
    args: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    stdout: str
    stderr: str

    def become(self, token_address: int | None) -> None:
        """Take on the session, directory, output files and environment of the job."""
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(self.cwd)
        outputs = os.open(self.stdout, _APPEND, 0o666), os.open(self.stderr, _APPEND, 0o666)
        for number, output in enumerate(outputs, start=1):
            os.dup2(output, number)
            os.close(output)
        os.environ.clear()
        os.environ.update(self.env)
        _mark(token_address, self.env.get(reaper.TOKEN, ""))
        time.tzset()  # rereads TZ
        tempfile.tempdir = None  # rereads TMPDIR

    def run(self) -> None:
        """Run the program. SystemExit and other exceptions reach the interpreter, as in any program."""
        if self.env.get("PYTHONUNBUFFERED"):
            sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        paths = [self.cwd, *filter(None, self.env.get("PYTHONPATH", "").split(os.pathsep))]
        sys.path[:] = [*paths, *(path for path in sys.path[1:] if path not in paths)]
        sys.argv = [self.module, *self.args]
        runpy.run_module(self.module, run_name="__main__", alter_sys=True)


_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


@dataclass(slots=True)
class Children:
    """Exit statuses of ended children by pid, in the form of `Popen.returncode`."""

    ended: dict[int, int] = field(default_factory=dict)

    def reap(self, *_: Any) -> None:
        """Handle SIGCHLD: reap at once, because others would still see a zombie as a process."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.ended[pid] = os.waitstatus_to_exitcode(status)


def serve(connection: socket.socket, token_address: int | None) -> Job | None:
    """Answer requests until the other end closes, then return None. In a forked child, return the child's job."""
    children = Children()
    signal.signal(signal.SIGCHLD, children.reap)
    with connection, connection.makefile("rb") as requests:
        for line in requests:
            request = json.loads(line)
            if "status" in request:
                answer: dict[str, Any] = {"returncode": children.ended.get(request["status"])}
            else:
                job = Job(**{**request, "args": tuple(request["args"])})
                try:
                    pid = _fork(job, token_address)
                except OSError as error:
                    answer = {"error": str(error)}
                else:
                    if not pid:
                        return job
                    answer = {"pid": pid}
            connection.sendall(json.dumps(answer).encode() + b"\n")
    return None


def _fork(job: Job, token_address: int | None) -> int:
    """Fork; return the child's pid, or 0 in the child.

    The pid is returned once the child has its session, so that signals to its process group arrive, and its files.
    Raises OSError if the child could not open one.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        with os.fdopen(reader, "rb") as trouble:
            if text := _all_of(trouble):
                raise OSError(text)
        return pid
    os.close(reader)
    with os.fdopen(writer, "wb") as trouble:
        try:
            job.become(token_address)
        except OSError as error:
            trouble.write(str(error).encode())
            trouble.flush()
            os._exit(127)
    return 0


def _all_of(pipe: BinaryIO) -> str:
    return pipe.read().decode(errors="replace")


def _token_address() -> int | None:
    """Address of the sandbox token in the environment block that exec wrote, which /proc/PID/environ shows."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    address: int | None = libc.getenv(reaper.TOKEN.encode())
    return address


def _mark(address: int | None, token: str) -> None:
    """Overwrite the token in the block that exec wrote: the reaper reads it through /proc/PID/environ."""
    if address and len(token) == len(os.environ.get(reaper.TOKEN, "")):
        ctypes.memmove(address, token.encode(), len(token))


def main(fd: int) -> None:
    connection = socket.socket(fileno=fd)
    connection.set_inheritable(False)
    address = _token_address()  # must precede the first setenv
    for name in PRELOAD:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # keeps the garbage collector of a child from copying the pages of imported modules
    if job := serve(connection, address):
        job.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
