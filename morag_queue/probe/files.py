"""Find files and open them safely: regular files only, with a limit on the bytes and the time of each read.

A parser that reads a `BoundedFile` gets end-of-file after `MAX_BYTES` or `MAX_SECONDS` and fails as it does on a
truncated file; `limit_reached` distinguishes the two. The time and memory of a probe therefore depend neither on the
size of the file nor on the sizes that its headers claim.
"""

import io
import os
import stat
import time
from collections.abc import Iterable, Iterator

from morag_queue.errors import SourceError

from .names import display_name
from .url import is_url

MAX_BYTES = 16_000_000
"""The index of a long video takes about 1 MB, the object table of a PDF with 500,000 objects 10 MB."""

MAX_SECONDS = 5.0

_SPECIAL_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def expand(paths: Iterable[str], recursive: bool) -> Iterator[str | SourceError]:
    """Yield each path or URL; with `recursive`, yield the files below a directory instead of the directory.

    Walks as `rg` does: hidden files and symbolic links to directories are skipped below a directory, but accepted as
    arguments. Skipping links excludes loops and duplicates. The order is by name, files and directories mixed, and the
    same on every machine. A directory without `recursive` and an unreadable directory yield a SourceError in their
    place. A path that does not exist is yielded; `probe` reports it.
    """
    for path in paths:
        if is_url(path) or not _is_directory(path):
            yield path
        elif recursive:
            yield from _walk(path)
        else:
            yield SourceError(
                f"{display_name(path)}: is a directory; use --recursive to include its files", source=path
            )


def _is_directory(path: str) -> bool:
    try:
        return os.path.isdir(path)
    except ValueError:  # a null byte in the name
        return False


def _walk(top: str) -> Iterator[str | SourceError]:
    stack = [(top, True)]  # not recursive: directories may be nested deeper than Python's recursion limit
    while stack:
        path, is_directory = stack.pop()
        if not is_directory:
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                children = [_child(entry) for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            yield SourceError(
                f"{display_name(path)}: cannot read the directory ({error.strerror}); correct its permissions",
                source=path,
            )
            continue
        children.sort(key=lambda child: os.fsencode(child[0]), reverse=True)
        stack += [(child, is_dir) for child, is_dir, is_link in children if not (is_link and is_dir)]


def _child(entry: os.DirEntry[str]) -> tuple[str, bool, bool]:
    """Return the path of an entry, whether it is a directory, and whether it is a symbolic link."""
    try:
        return entry.path, entry.is_dir(), entry.is_symlink()
    except OSError:  # a circular link; `probe` reports it
        return entry.path, False, True


def stat_file(path: str) -> os.stat_result:
    """Return the status of a regular file. Raises SourceError, with a remedy, for any other kind of path."""
    name = display_name(path)
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise SourceError(_missing(path)) from error
    except NotADirectoryError as error:
        raise SourceError(f"{name}: no such file: part of its path is not a directory; correct the path") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if "\0" in path:  # the versions of Python word it differently
            reason = "it contains a null byte"
        raise SourceError(f"{name}: cannot be opened ({reason}); correct the path or its permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{name}: is a directory; use --recursive to include its files")
    if not stat.S_ISREG(status.st_mode):
        kind = _SPECIAL_FILES.get(stat.S_IFMT(status.st_mode), "an unknown kind of file")
        raise SourceError(f"{name}: is {kind}, which has no content to classify; copy its data to a regular file")
    return status


def _missing(path: str) -> str:
    if not path:
        return "empty source: pass a path or a URL"
    name = display_name(path)
    if os.path.islink(path):
        target = display_name(os.readlink(path))
        return f"{name}: is a symbolic link to {target}, which does not exist; repair the link or leave it out"
    return f"{name}: no such file; correct the path, or start a URL with https://"


class BoundedFile(io.BufferedReader):
    """A file for parsers that ends after `MAX_BYTES` or `MAX_SECONDS`."""

    def __init__(self, path: str) -> None:
        self._budget = _Budget()
        # Non-blocking: a pipe may have replaced the file since stat_file().
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        super().__init__(_CountingFile(descriptor, self._budget), buffer_size=64 * 1024)

    @property
    def limit_reached(self) -> bool:
        """Whether a parser asked for more than the limit."""
        return self._budget.exceeded

    @property
    def bytes_read(self) -> int:
        """Bytes read from the disk."""
        return self._budget.fetched

    def limit(self, max_bytes: int) -> None:
        """Lower the limit of a search that is unlikely to succeed."""
        self._budget.max_bytes = max_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        # Count here too, because a parser in a loop may never leave the buffer. Cap `size`, because Python allocates
        # the buffer before it reads, and `size` may come from a broken header.
        remaining = self._budget.remaining(self._budget.served)
        data = super().read(remaining if size is None or size < 0 else min(size, remaining)) if remaining else b""
        self._budget.served += len(data)
        return data


class _Budget:
    """The read limits of one file, the bytes fetched from the disk, and the bytes served from the buffer."""

    def __init__(self) -> None:
        self.max_bytes = MAX_BYTES
        self.fetched = 0
        self.served = 0
        self.exceeded = False
        self._deadline = time.monotonic() + MAX_SECONDS

    def remaining(self, used: int) -> int:
        remaining = max(self.max_bytes - used, 0) if time.monotonic() < self._deadline else 0
        if not remaining:
            self.exceeded = True
        return remaining


class _CountingFile(io.FileIO):
    def __init__(self, descriptor: int, budget: _Budget) -> None:
        super().__init__(descriptor, "rb")
        self._budget = budget

    def readinto(self, buffer, /):  # type: ignore[no-untyped-def]
        count = super().readinto(memoryview(buffer)[: self._budget.remaining(self._budget.fetched)])
        self._budget.fetched += count or 0
        return count
