"""Probe one source."""

import os

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError

from .content import read_content
from .files import BoundedFile, stat_file
from .formats import Content
from .names import MIME_OF_SUFFIX, display_name, format_size, suffix_of, type_by_name
from .url import is_url, probe_url

_SPARSE_MIN_BYTES = 1_000_000  # a small file may be stored in its inode or compressed by the file system
_SPARSE_SHARE = 0.01
_AUDIO_OR_VIDEO = {ContentType.AUDIO, ContentType.VIDEO}


def probe(source: str, *, declared: ContentType | None = None) -> Facts:
    """Read the content of a file, or the address of a URL; never use the network.

    `declared` is the content type that the caller specifies. An empty, unreadable, damaged, truncated or misnamed file
    gives facts with `problems`. Reads at most 16 MB and takes at most a few seconds, regardless of the file size.
    Raises SourceError if there is nothing to submit: a missing path, a directory, pipe, socket or device, or a URL with
    an unsupported scheme.
    """
    if is_url(source):
        return probe_url(source, declared)
    status = stat_file(source)
    content = _content(source, status)
    type_of_name = type_by_name(source)
    problems = (*content.problems, *_contradictions(source, content, declared, type_of_name))
    return Facts(
        source=source,
        declared_type=declared or type_of_name,
        size_bytes=status.st_size,
        **content._replace(problems=problems)._asdict(),
    )


def _content(source: str, status: os.stat_result) -> Content:
    try:
        with BoundedFile(source) as file:
            content = read_content(file, status.st_size)
    except FileNotFoundError as error:
        raise SourceError(
            f"{display_name(source)}: disappeared while it was being read; submit it again once it exists"
        ) from error
    except OSError as error:
        return Content(problems=(f"cannot be read ({error.strerror}); a worker may not be able to either",))
    on_disk = getattr(status, "st_blocks", status.st_size) * 512
    if status.st_size > _SPARSE_MIN_BYTES and on_disk < status.st_size * _SPARSE_SHARE:
        sparse = f"a sparse file: only {format_size(on_disk)} of its {format_size(status.st_size)} are on the disk"
        content = content._replace(problems=(*content.problems, sparse))
    return content


def _contradictions(
    source: str, content: Content, declared: ContentType | None, type_of_name: ContentType | None
) -> tuple[str, ...]:
    """Return a problem if the content differs from the declared type or the file name, else ()."""
    kind = content.content_type
    if kind is None:
        return ()
    actual = f"its content is {kind} ({content.mime})" if content.mime else f"its content is {kind}"
    if declared is not None:
        return () if declared is kind else (f"declared {declared}, but {actual}",)
    suffix = suffix_of(source)
    # An mp4 file without a video track is audio, and correctly named.
    if type_of_name not in (None, kind) and {type_of_name, kind} != _AUDIO_OR_VIDEO:
        return (f"named like {type_of_name} (.{suffix}), but {actual}",)
    if suffix in MIME_OF_SUFFIX and content.mime != MIME_OF_SUFFIX[suffix]:
        return (f"named .{suffix}, but {actual}",)
    return ()
