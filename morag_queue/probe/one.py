"""One source, one set of facts."""

import os

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError

from .content import read_content
from .found import Found
from .names import shown, size_shown
from .opened import Bounded, stat_source
from .suffixes import SIGNED, suffix_of, type_by_name
from .url import is_url, probe_url

_SPARSE_FROM = 1_000_000  # a small file may live in its inode, or be compressed by the file system
_SPARSE_SHARE = 0.01
_EITHER = {ContentType.AUDIO, ContentType.VIDEO}


def probe(source: str, *, declared: ContentType | None = None) -> Facts:
    """What a path or URL is, read from its content, or from the address of a URL; the network is never used.

    `declared` is what the caller says that it is. An empty, unreadable, broken, cut-off or wrongly named file gives
    facts with `problems`. Reads at most 16 MB and for a few seconds, whatever the size. Raises SourceError where there
    is nothing to submit: no such path, a directory, a pipe, socket or device, an address of an unknown scheme.
    """
    if is_url(source):
        return probe_url(source, declared)
    status = stat_source(source)
    found = _content(source, status)
    claimed = type_by_name(source)
    return Facts(
        source=source,
        declared_type=declared or claimed,
        size_bytes=status.st_size,
        **found._replace(problems=(*found.problems, *_contradictions(source, found, declared, claimed)))._asdict(),
    )


def _content(source: str, status: os.stat_result) -> Found:
    try:
        with Bounded(source) as file:
            found = read_content(file, status.st_size)
    except FileNotFoundError as error:
        raise SourceError(
            f"{shown(source)}: it vanished while it was looked at; submit it again if it is back"
        ) from error
    except OSError as error:
        return Found(problems=(f"cannot be read ({error.strerror}); a worker may not be able to either",))
    on_disk = getattr(status, "st_blocks", status.st_size) * 512
    if status.st_size > _SPARSE_FROM and on_disk < status.st_size * _SPARSE_SHARE:
        hole = f"mostly a hole: {size_shown(on_disk)} of its {size_shown(status.st_size)} are on the disk"
        found = found._replace(problems=(*found.problems, hole))
    return found


def _contradictions(
    source: str, found: Found, declared: ContentType | None, claimed: ContentType | None
) -> tuple[str, ...]:
    """Where the content is not what the caller or the name says."""
    kind = found.content_type
    if kind is None:
        return ()
    content = f"its content is {kind} ({found.mime})" if found.mime else f"its content is {kind}"
    if declared is not None:
        return () if declared is kind else (f"declared {declared}, but {content}",)
    suffix = suffix_of(source)
    if claimed not in (None, kind) and {claimed, kind} != _EITHER:  # an mp4 may well be without a picture
        return (f"named like {claimed} (.{suffix}), but {content}",)
    if suffix in SIGNED and found.mime != SIGNED[suffix]:
        return (f"named .{suffix}, but {content}",)
    return ()
