"""The process that `Prefork` starts: it has imported what workers need, and forks a child for each request.

`python -m morag_queue.local.prefork_server FD`, with FD a Unix stream socket. A request is a line of JSON, so is its
answer; see `_answer`. It has no thread and no connection but that socket, hence a fork is safe. It ends when the other
end of the socket closes, for whatever reason; its children go on, and the guard of their nest ends them.
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

from . import guard

PRELOAD = (
    *("celery.__main__", "celery.bin.celery", "celery.apps.worker", "celery.concurrency.prefork"),
    *("celery.backends.redis", "celery.events.state", "celery.fixups", "celery.loaders.app"),
    *("celery.worker.autoscale", "celery.worker.components", "celery.worker.consumer", "celery.worker.control"),
    *("celery.worker.loops", "celery.worker.strategy", "celery.app.control", "celery.app.events", "celery.app.log"),
    *("kombu.transport.redis", "kombu.pidbox", "kombu.asynchronous.hub", "billiard.pool", "redis.sentinel"),
    *("morag_queue.agent", "morag_queue.local.work", "morag_queue.cli", "morag_queue.cli.watch", "morag_queue.loop"),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One child: `python -m module *args` in directory `cwd` with that environment; outputs are appended to files."""

    module: str
    args: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    stdout: str
    stderr: str

    def settle(self, token_address: int | None) -> None:
        """Become the process that was asked for, from outside: session, directory, files, environment."""
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(self.cwd)
        outputs = os.open(self.stdout, _APPEND, 0o666), os.open(self.stderr, _APPEND, 0o666)
        for number, output in enumerate(outputs, start=1):
            os.dup2(output, number)
            os.close(output)
        os.environ.clear()
        os.environ.update(self.env)
        _mark(token_address, self.env.get(guard.TOKEN, ""))
        time.tzset()  # TZ is read once
        tempfile.tempdir = None  # TMPDIR, too

    def run(self) -> None:
        """The program; SystemExit and other exceptions go up to the interpreter, as from any program."""
        if self.env.get("PYTHONUNBUFFERED"):
            sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        paths = [self.cwd, *filter(None, self.env.get("PYTHONPATH", "").split(os.pathsep))]
        sys.path[:] = [*paths, *(path for path in sys.path[1:] if path not in paths)]
        sys.argv = [self.module, *self.args]
        runpy.run_module(self.module, run_name="__main__", alter_sys=True)


_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


@dataclass(slots=True)
class Children:
    """Exit statuses of the children that have ended, as of `Popen.returncode`."""

    ended: dict[int, int] = field(default_factory=dict)

    def reap(self, *_: Any) -> None:
        """Handler of SIGCHLD: a child that has ended must not stay as a zombie, for others look whether it is gone."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.ended[pid] = os.waitstatus_to_exitcode(status)


def serve(connection: socket.socket, token_address: int | None) -> Job | None:
    """Answer requests until the other end closes: None. In a child it returns, too: with the child's job."""
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
    """The child's pid, once it has its session and its files: from now on a signal to its group finds it. 0 in it.

    Raises OSError for what the child could not open.
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
            job.settle(token_address)
        except OSError as error:
            trouble.write(str(error).encode())
            trouble.flush()
            os._exit(127)
    return 0


def _all_of(pipe: BinaryIO) -> str:
    return pipe.read().decode(errors="replace")


def _token_address() -> int | None:
    """Where this process's environment, as others see it, has the token of its nest: the block given by exec."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    address: int | None = libc.getenv(guard.TOKEN.encode())
    return address


def _mark(address: int | None, token: str) -> None:
    """Write the nest's token where the guard reads it: others see a process's environment as exec gave it."""
    if address and len(token) == len(os.environ.get(guard.TOKEN, "")):
        ctypes.memmove(address, token.encode(), len(token))


def main(fd: int) -> None:
    connection = socket.socket(fileno=fd)
    connection.set_inheritable(False)
    address = _token_address()  # before anything sets a variable
    for name in PRELOAD:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the collector of a child need not touch (and so copy) the pages of what is imported
    if job := serve(connection, address):
        job.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
