"""Outlives whoever started a nest by a moment, and clears it away: `python guard.py TOKEN DIRECTORY`, stdin a pipe.

The pipe closes when its other end is gone, for whatever reason: a clean end, an exception, SIGTERM, SIGKILL. A signal
handler or an `atexit` would miss the last. It is run as a file, so that it needs nothing of this package.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

TOKEN = "MORAG_LOCAL_NEST"
"""The environment variable that all processes of a nest bear, whatever group or session they moved to."""
TOKEN_LENGTH = 16
"""Each token is as long, so that one can take another's place in an environment."""
_LOOK_SECONDS = 0.005


def processes(token: str) -> Iterator[psutil.Process]:
    """The living processes of a nest."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's


def sweep(token: str) -> int:
    """Kills all processes of a nest; returns how many there were. One may fork while we look: until none is left.

    A zombie is dead enough: its parent, or init, takes a second or so to notice.
    """
    swept: set[int] = set()
    while found := list(processes(token)):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        swept |= {process.pid for process in found}
        time.sleep(_LOOK_SECONDS)
    return len(swept)


def main(token: str, directory: str) -> None:
    sys.stdin.buffer.read()
    sweep(token)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
