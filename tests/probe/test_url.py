"""Facts from a URL alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_queue.core.model import ContentType, Facts
from morag_queue.errors import SourceError
from morag_queue.probe import probe

YOUTUBE, WEB = ContentType.YOUTUBE, ContentType.WEB


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://www.youtube.com/watch?v=dQw4w9WgXcQ", YOUTUBE),
        ("https://youtube.com/watch?list=PL1&v=dQw4w9WgXcQ&t=1s", YOUTUBE),
        ("http://m.youtube.com/watch/?v=dQw4w9WgXcQ", YOUTUBE),
        ("https://music.youtube.com/watch?v=dQw4w9WgXcQ", YOUTUBE),
        ("HTTPS://WWW.YouTube.com/watch?v=dQw4w9WgXcQ", YOUTUBE),
        ("https://youtu.be/dQw4w9WgXcQ?si=x", YOUTUBE),
        ("https://www.youtube.com/shorts/dQw4w9WgXcQ", YOUTUBE),
        ("https://www.youtube.com/live/dQw4w9WgXcQ", YOUTUBE),
        ("https://www.youtube-nocookie.com/embed/dQw4w9WgXcQ", YOUTUBE),
        ("https://www.youtube.com/playlist?list=PL1", YOUTUBE),
        ("https://www.youtube.com/@someone", WEB),
        ("https://www.youtube.com/watch", WEB),
        ("https://youtu.be/", WEB),
        ("https://notyoutube.com/watch?v=dQw4w9WgXcQ", WEB),
        ("https://youtube.com.example.org/watch?v=dQw4w9WgXcQ", WEB),
        ("https://example.org/?u=https://youtu.be/dQw4w9WgXcQ", WEB),
        ("https://example.org", WEB),
        ("https://example.org/page.html", WEB),
        ("https://example.com/.com", WEB),
        ("https://[::1]:8080/x", WEB),
        ("https://example.org/a/talk.MP3?token=1#t=3", ContentType.AUDIO),
        ("https://example.org/film.webm", ContentType.VIDEO),
        ("https://example.org/pic%20ture.jpeg", ContentType.IMAGE),
        ("https://example.org/paper.pdf", ContentType.DOCUMENT),
    ],
)
def test_the_type_of_a_url_follows_from_its_host_and_path(url: str, kind: ContentType) -> None:
    facts = probe(url)
    assert (facts.source, facts.is_url, facts.content_type, facts.declared_type) == (url, True, None, kind)


hosts = st.sampled_from(["youtu.be", "www.youtube.com", "example.org"]) | st.from_regex(
    r"[a-z0-9.-]{1,9}", fullmatch=True
)
paths = st.sampled_from(["", "/watch", "/playlist", "/shorts/x", "/a.mp4", "/b.html"]) | st.from_regex(r"/[!-~]{0,9}")
queries = st.sampled_from(["", "?", "?v=1", "?list=1&v=%41"]) | st.from_regex(r"\?[!-~]{0,9}", fullmatch=True)


@given(st.sampled_from(["http", "https"]), hosts, paths, queries)
def test_the_usual_form_of_a_url_is_read_as_every_other(scheme: str, host: str, path: str, query: str) -> None:
    rest = f"://{host}{path}{query}"
    assert _read(scheme + rest) == _read(scheme.upper() + rest)


def _read(url: str) -> Facts | None:
    try:
        return probe(url).model_copy(update={"source": ""})
    except SourceError:
        return None


def test_the_declared_type_of_a_url_takes_precedence() -> None:
    assert probe("https://example.org/stream", declared=ContentType.AUDIO).declared_type is ContentType.AUDIO


def test_a_playlist_has_an_unknown_number_of_videos() -> None:
    facts = probe("https://www.youtube.com/playlist?list=PL1")
    assert facts.problems == ("a YouTube playlist: the number of videos is unknown",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "ftp://user:secret@example.org/a.mp3",
            "ftp://***@example.org/a.mp3: ftp:// URLs are not supported; use http or https, or a path",
        ),
        ("file:///data/a.mp3", "file:///data/a.mp3: file:// URLs are not supported; use the path of the file"),
        ("https://", "https://: invalid URL: the host is missing; use a form like https://example.org/page"),
        ("https:///path", "https:///path: invalid URL: the host is missing; use a form like https://example.org/page"),
        (
            "https://example.org/a b",
            "https://example.org/a b: invalid URL: it contains a space; percent-encode it",
        ),
        (
            "https://example.org/a\nb",
            "https://example.org/a\\nb: invalid URL: it contains \\n; percent-encode it",
        ),
        (
            "https://example.org:99999/",
            "https://example.org:99999/: invalid URL (Port out of range 0-65535); correct it",
        ),
        ("https://[::1/", "https://[::1/: invalid URL (Invalid IPv6 URL); correct it"),
    ],
)
def test_an_unsupported_or_invalid_url_is_refused(source: str, message: str) -> None:
    with pytest.raises(SourceError) as raised:
        probe(source)
    assert str(raised.value) == message
