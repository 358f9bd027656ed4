"""What an address says by itself; nothing here goes to the network."""

import re
from urllib.parse import parse_qs, unquote, urlsplit

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError

from .names import shown
from .suffixes import suffix_of, type_by_name

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_UNFIT = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
_YOUTUBE_HOST = re.compile(r"(?:(?:www|m|music|gaming)\.)?youtube(?:-nocookie)?\.com")
_VIDEO_PATH = re.compile(r"/(?:shorts|live|embed|v|e)/[\w-]+")
_PAGES = frozenset({"htm", "html", "xhtml"})


def is_url(source: str) -> bool:
    return _SCHEME.match(source) is not None


def probe_url(source: str, declared: ContentType | None) -> Facts:
    """The kind of a URL. Raises SourceError for a scheme that no task fetches, or for no URL at all."""
    host, path, query = _parts(source)
    problems: tuple[str, ...] = ()
    kind = _youtube(host, path, query)
    if kind == "playlist":
        problems = ("a YouTube playlist: how many videos it has is not known",)
    if kind:
        by_address = ContentType.YOUTUBE
    else:
        by_address = ContentType.WEB if suffix_of(path) in _PAGES else type_by_name(path) or ContentType.WEB
    return Facts(source=source, is_url=True, declared_type=declared or by_address, problems=problems)


def _parts(source: str) -> tuple[str, str, str]:
    match = _SCHEME.match(source)
    scheme = match[1].lower() if match else ""
    if scheme == "file":
        raise SourceError(f"{shown(source)}: a file is given by its path; leave out 'file://'")
    if scheme not in ("http", "https"):
        raise SourceError(
            f"{shown(source)}: '{scheme}' addresses are not supported; give an http or https one, or a path"
        )
    if unfit := _UNFIT.search(source):
        character = unfit[0].encode("unicode_escape").decode("ascii") if unfit[0] != " " else "a space"
        raise SourceError(f"{shown(source)}: not a URL, it contains {character}; write it percent-encoded")
    try:
        parts = urlsplit(source)
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise SourceError(f"{shown(source)}: not a URL ({error}); correct it") from error
    if not host:
        raise SourceError(f"{shown(source)}: not a URL, the host is missing; write it like https://example.org/page")
    return host, unquote(parts.path), parts.query


def _youtube(host: str, path: str, query: str) -> str:
    """'video' or 'playlist' where the address names one; channels, searches and feeds are ordinary web pages."""
    if host == "youtu.be":
        return "video" if len(path) > 1 else ""
    if not _YOUTUBE_HOST.fullmatch(host):
        return ""
    names = parse_qs(query)
    if path.startswith("/playlist") and "list" in names:
        return "playlist"
    return "video" if (path.rstrip("/") == "/watch" and "v" in names) or _VIDEO_PATH.match(path) else ""
