"""Generate the demo's media: files of every type, and URLs that are never fetched. The seed determines all of it."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from . import formats

URLS = (
    "https://example.org/handbook/queues.html",
    "https://example.org/blog/late-binding",
    "https://example.com/reports/2026/first-quarter",
    "https://www.youtube.com/watch?v=mq00000demo",
    "https://youtu.be/mq00001demo",
    "https://www.youtube.com/watch?v=mq00002demo",
    "https://www.youtube.com/watch?v=mq00003demo",
    "https://youtu.be/mq00004demo",
)
_WORDS = ("batch", "broker", "claim", "drain", "engine", "frame", "graph", "heartbeat", "index", "kernel", "lane")


def make_media(directory: Path, seed: int = 0) -> list[str]:
    """Write about 70 files, 3 MB in all, and return their paths and `URLS`, grouped by type."""
    directory.mkdir(parents=True, exist_ok=True)
    chance = Random(seed)
    made: list[str] = []
    for folder, suffix, count, write in _KINDS:
        (directory / folder).mkdir(exist_ok=True)
        for number in range(1, count + 1):
            path = directory / folder / f"{folder}-{number:02d}.{suffix}"
            write(path, chance)
            made.append(str(path))
    return [*made, *URLS]


def _text(chance: Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _pages(chance: Random, most: int) -> list[str]:
    return [_text(chance, 200) for _ in range(chance.randint(1, most))]


def _wav(path: Path, chance: Random) -> None:
    formats.write_wav(path, chance.uniform(1, 30), chance.uniform(110, 880))


def _avi(path: Path, chance: Random) -> None:
    formats.write_avi(path, chance.randint(20, 70), chance.randrange(256))


def _png(path: Path, chance: Random) -> None:
    width, height = chance.choice([(640, 480), (1280, 720), (1600, 1200), (2400, 1600), (4200, 3000)])
    formats.write_png(path, width, height, chance.randrange(256))


def _pdf(path: Path, chance: Random) -> None:
    formats.write_pdf(path, _pages(chance, 8))


def _docx(path: Path, chance: Random) -> None:
    formats.write_docx(path, _pages(chance, 6))


def _txt(path: Path, chance: Random) -> None:
    path.write_text(_text(chance, chance.randint(50, 3000)) + "\n", "utf-8")


def _md(path: Path, chance: Random) -> None:
    sections = [f"## {_text(chance, 3)}\n\n{_text(chance, 150)}\n" for _ in range(chance.randint(1, 8))]
    path.write_text("\n".join([f"# {_text(chance, 4)}\n", *sections]), "utf-8")


def _html(path: Path, chance: Random) -> None:
    body = "".join(f"<p>{_text(chance, 120)}</p>\n" for _ in range(chance.randint(1, 10)))
    title = _text(chance, 4)
    path.write_text(
        f"<!DOCTYPE html>\n<html lang=en><head><title>{title}</title></head>\n<body>\n{body}</body></html>\n", "utf-8"
    )


_KINDS: tuple[tuple[str, str, int, Callable[[Path, Random], None]], ...] = (
    ("recording", "wav", 10, _wav),
    ("film", "avi", 12, _avi),
    ("photo", "png", 14, _png),
    ("report", "pdf", 12, _pdf),
    ("letter", "docx", 6, _docx),
    ("notes", "txt", 8, _txt),
    ("readme", "md", 6, _md),
    ("page", "html", 6, _html),
)
