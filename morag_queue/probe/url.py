"""Derive facts from a URL alone, without using the network."""

import re
from urllib.parse import parse_qs, unquote, urlsplit

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError

from .names import display_name, suffix_of, type_by_name

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_USUAL = re.compile(r"https?://([a-z0-9-]+(?:\.[a-z0-9-]+)*)(/[\w./~+-]*)?(?:\?([\w./~+&=-]*))?", re.ASCII)
"""Host, path and query of a URL that needs no more checks and no decoding."""

_INVALID = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
_YOUTUBE_HOST = re.compile(r"(?:(?:www|m|music|gaming)\.)?youtube(?:-nocookie)?\.com")
_VIDEO_PATH = re.compile(r"/(?:shorts|live|embed|v|e)/[\w-]+")
_PAGE_SUFFIXES = frozenset({"htm", "html", "xhtml"})


def is_url(source: str) -> bool:
    return _SCHEME.match(source) is not None


def probe_url(source: str, declared: ContentType | None) -> Facts:
    """Return the facts of a URL. Raises SourceError for an unsupported scheme or an invalid URL."""
    host, path, query = _parts(source)
    problems: tuple[str, ...] = ()
    kind = _youtube(host, path, query)
    if kind == "playlist":
        problems = ("a YouTube playlist: the number of videos is unknown",)
    claimed = declared or (ContentType.YOUTUBE if kind else _type_by_path(path))
    return Facts(source=source, is_url=True, declared_type=claimed, problems=problems)


def _type_by_path(path: str) -> ContentType:
    return ContentType.WEB if suffix_of(path) in _PAGE_SUFFIXES else type_by_name(path) or ContentType.WEB


def _parts(source: str) -> tuple[str, str, str]:
    """Split a URL into host, unquoted path and query."""
    if usual := _USUAL.fullmatch(source):
        host, path, query = usual.groups("")
        return host, path, query
    match = _SCHEME.match(source)
    scheme = match[1].lower() if match else ""
    if scheme == "file":
        raise SourceError(f"{display_name(source)}: file:// URLs are not supported; use the path of the file")
    if scheme not in ("http", "https"):
        raise SourceError(f"{display_name(source)}: {scheme}:// URLs are not supported; use http or https, or a path")
    if invalid := _INVALID.search(source):
        character = invalid[0].encode("unicode_escape").decode("ascii") if invalid[0] != " " else "a space"
        raise SourceError(f"{display_name(source)}: invalid URL: it contains {character}; percent-encode it")
    try:
        parts = urlsplit(source)
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise SourceError(f"{display_name(source)}: invalid URL ({error}); correct it") from error
    if not host:
        raise SourceError(
            f"{display_name(source)}: invalid URL: the host is missing; use a form like https://example.org/page"
        )
    return host, unquote(parts.path), parts.query


def _youtube(host: str, path: str, query: str) -> str:
    """Return 'video', 'playlist' or ''. Channels, searches and feeds are ordinary web pages."""
    if host == "youtu.be":
        return "video" if len(path) > 1 else ""
    if not _YOUTUBE_HOST.fullmatch(host):
        return ""
    names = parse_qs(query)
    if path.startswith("/playlist") and "list" in names:
        return "playlist"
    return "video" if (path.rstrip("/") == "/watch" and "v" in names) or _VIDEO_PATH.match(path) else ""
