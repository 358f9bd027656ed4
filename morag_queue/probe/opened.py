"""Opening a source without being harmed by it: regular files only, and no more than a share of each.

A parser that is handed a `Bounded` file sees its end after `BYTES` or `SECONDS`: it gives up as it would on a file
that was cut off, and `spent` tells that it was us. So the time and the memory of a probe do not follow the size of
the file, nor what a header claims.
"""

import io
import os
import stat
import time

from morag_queue.errors import SourceError

from .names import shown

BYTES = 16_000_000  # the index of a long video is about 1 MB, the table of a PDF with 500,000 objects 10 MB
SECONDS = 5.0

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def stat_source(path: str) -> os.stat_result:
    """The state of a regular file. Raises SourceError for anything else, with what to do."""
    name = shown(path)
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise SourceError(_missing(path)) from error
    except NotADirectoryError as error:
        raise SourceError(f"{name}: no such file, a part of its path is not a directory; correct the path") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SourceError(f"{name}: cannot be looked at ({reason}); correct the path or its permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{name}: a directory; give --recursive to take the files in it")
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
        raise SourceError(f"{name}: {kind}, which has no content to classify; copy it to a file first")
    return status


def _missing(path: str) -> str:
    name = shown(path)
    if not path:
        return "an empty name: give a path or a URL"
    if os.path.islink(path):
        return f"{name}: a symbolic link to {shown(os.readlink(path))}, which does not exist; repair it or leave it out"
    return f"{name}: no such file; correct the path, and write a URL with its https://"


class Bounded(io.BufferedReader):
    """A file for parsers, read up to `BYTES` and for up to `SECONDS`."""

    def __init__(self, path: str) -> None:
        # Not blocking: between the look at it and here, a pipe may have taken its place.
        self._share = _Share(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        super().__init__(self._share, buffer_size=64 * 1024)

    @property
    def spent(self) -> int:
        """The bytes that were read, where a parser wanted more than its share; otherwise 0."""
        return self._share.taken if self._share.refused else 0

    def limit(self, share: int) -> None:
        """Less than `BYTES`, for a parser that looks for something that is probably not there."""
        self._share.limit = share

    def read(self, size: int | None = -1, /) -> bytes:
        # The buffer for a read is allocated before anything is read: a size from a broken header must not decide it.
        return super().read(BYTES if size is None or size < 0 else min(size, BYTES))


class _Share(io.FileIO):
    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "rb")
        self.limit = BYTES
        self.taken = 0
        self.refused = False
        self._until = time.monotonic() + SECONDS

    def readinto(self, buffer, /):  # type: ignore[no-untyped-def]
        left = self.limit - self.taken
        if left <= 0 or time.monotonic() > self._until:
            self.refused = True
            return 0
        count = super().readinto(memoryview(buffer)[:left])
        self.taken += count or 0
        return count
