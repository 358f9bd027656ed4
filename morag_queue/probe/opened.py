"""Opening a source without being harmed by it: regular files only, and no more than a share of each.

A parser that is handed a `Bounded` file sees its end after `BYTES` or `SECONDS`: it gives up as it would on a file
that was cut off, and `out_of_share` tells that it was us. So the time and the memory of a probe do not follow the
size of the file, nor what a header claims.
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
        self._share = _Share()
        # Not blocking: between the look at it and here, a pipe may have taken its place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        super().__init__(_Counted(descriptor, self._share), buffer_size=64 * 1024)

    @property
    def out_of_share(self) -> bool:
        """Whether a parser wanted more than its share."""
        return self._share.refused

    @property
    def fetched(self) -> int:
        """The bytes that were read from the disk."""
        return self._share.fetched

    def limit(self, share: int) -> None:
        """Less than `BYTES`, for a parser that looks for something that is probably not there."""
        self._share.limit = share

    def read(self, size: int | None = -1, /) -> bytes:
        # Counted here as well: a parser that runs in a circle may never leave the buffer. And the memory for a read is
        # taken before anything is read, so a size from a broken header must not decide it.
        left = self._share.left(self._share.served)
        data = super().read(left if size is None or size < 0 else min(size, left)) if left else b""
        self._share.served += len(data)
        return data


class _Share:
    """What a parser may have of a file, and what it has had."""

    def __init__(self) -> None:
        self.limit = BYTES
        self.fetched = 0
        self.served = 0
        self.refused = False
        self._until = time.monotonic() + SECONDS

    def left(self, had: int) -> int:
        left = max(self.limit - had, 0) if time.monotonic() < self._until else 0
        if not left:
            self.refused = True
        return left


class _Counted(io.FileIO):
    def __init__(self, descriptor: int, share: _Share) -> None:
        super().__init__(descriptor, "rb")
        self._share = share

    def readinto(self, buffer, /):  # type: ignore[no-untyped-def]
        count = super().readinto(memoryview(buffer)[: self._share.left(self._share.fetched)])
        self._share.fetched += count or 0
        return count
