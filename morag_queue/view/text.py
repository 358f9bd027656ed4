"""Text of others, made harmless: sources, worker ids, reasons and arguments may hold anything.

Renderables are built of `rich.text.Text`, never of a str, so that markup such as `[bold]` is shown as it is written.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text


def safe(text: object, limit: int | None = None) -> str:
    """One line that a terminal shows as it is: what is not printable becomes a visible escape.

    That covers control characters, ANSI sequences, line breaks, bidirectional and zero-width marks, and the lone
    surrogates by which Python carries bytes of a file name that are no UTF-8. With a `limit`, in characters, a longer
    text loses its middle: the end of a path says as much as its beginning.
    """
    plain = str(text)
    if limit is not None and len(plain) > 2 * limit:  # a name of a megabyte is not escaped whole
        plain = f"{plain[:limit]}{plain[-limit:]}"
    if not plain.isprintable():
        plain = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in plain)
    if limit is None or len(plain) <= limit:
        return plain
    head = limit // 2
    return f"{plain[:head]}…{plain[len(plain) - (limit - 1 - head) :]}"


def cell(text: object, style: str = "", limit: int | None = None) -> "Text":
    """`safe` text for a table: no wrapping; what does not fit is cut with an ellipsis."""
    from rich.text import Text

    return Text(safe(text, limit), style=style, no_wrap=True, overflow="ellipsis")
