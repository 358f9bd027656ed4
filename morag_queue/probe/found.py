"""What a reader of one format finds."""

from typing import NamedTuple

from morag_queue.core.model import ContentType


class Found(NamedTuple):
    """The part of `Facts` that comes from the content."""

    content_type: ContentType | None = None
    mime: str | None = None
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    characters: int | None = None
    problems: tuple[str, ...] = ()
