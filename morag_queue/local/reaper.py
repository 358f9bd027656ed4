"""Clean up a sandbox after its owner ends: `python reaper.py TOKEN DIRECTORY`, with a pipe as stdin.

The pipe closes when the owner ends for any reason: normally, by an exception, SIGTERM or SIGKILL. Signal handlers and
`atexit` would miss SIGKILL. It runs as a file, so that it imports nothing of this package.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

TOKEN = "MORAG_LOCAL_SANDBOX"
"""Environment variable of every process of a sandbox, whatever group or session it moved to."""
TOKEN_LENGTH = 16
"""All tokens have one length, so that one can overwrite another in an environment block."""
_POLL_SECONDS = 0.005


def processes(token: str) -> Iterator[psutil.Process]:
    """Yield the running processes of a sandbox."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue  # it has ended, or belongs to another user


def sweep(token: str) -> int:
    """Kill all processes of a sandbox, repeatedly because they may fork meanwhile; return how many were killed.

    Zombies are ignored: their parent or init may take a second to reap them.
    """
    swept: set[int] = set()
    while found := list(processes(token)):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        swept |= {process.pid for process in found}
        time.sleep(_POLL_SECONDS)
    return len(swept)


def main(token: str, directory: str) -> None:
    sys.stdin.buffer.read()
    sweep(token)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
