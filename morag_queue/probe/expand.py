"""The files that paths stand for."""

import os
from collections.abc import Iterable, Iterator

from morag_queue.errors import SourceError

from .names import shown
from .url import is_url


def expand(paths: Iterable[str], recursive: bool) -> Iterator[str | SourceError]:
    """Each path or URL as it is; of a directory, with `recursive`, the files below it.

    As `rg` walks: hidden files and directories are passed over, and symbolic links to directories are not followed, so
    that no loop is possible and nothing comes twice; both are taken where they are named themselves. The order is by
    name, file or directory alike, on every machine the same. What cannot be taken (a directory without `recursive`, an
    unreadable one) comes as a SourceError in its place; a path that does not exist is left to `probe`.
    """
    for path in paths:
        if is_url(path) or not _is_directory(path):
            yield path
        elif recursive:
            yield from _walk(path)
        else:
            yield SourceError(f"{shown(path)}: a directory; give --recursive to take the files in it", source=path)


def _is_directory(path: str) -> bool:
    try:
        return os.path.isdir(path)
    except ValueError:  # a zero byte in the name
        return False


def _walk(top: str) -> Iterator[str | SourceError]:
    waiting = [(top, True)]  # a stack, the next one last: directories may be nested deeper than calls may be
    while waiting:
        path, is_directory = waiting.pop()
        if not is_directory:
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                children = [_child(entry) for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            yield SourceError(
                f"{shown(path)}: the directory cannot be read ({error.strerror}); correct its permissions", source=path
            )
            continue
        children.sort(key=lambda child: os.fsencode(child[0]), reverse=True)
        waiting += [(child, directory) for child, directory, linked in children if not (linked and directory)]


def _child(entry: os.DirEntry[str]) -> tuple[str, bool, bool]:
    try:
        return entry.path, entry.is_dir(), entry.is_symlink()
    except OSError:  # a link in a circle: what is wrong with it is for `probe` to say
        return entry.path, False, True
