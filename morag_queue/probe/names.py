"""Names as a person may see them: no control character reaches a terminal, no password a screen."""

import os
import re

_USERINFO = re.compile(r"(?<=://)[^/?#@]*@")


def shown(source: str) -> str:
    """The source for a message: control characters and bytes that are not UTF-8 as escapes, no log-in of a URL."""
    text = os.fsencode(source).decode("utf-8", "backslashreplace") if _surrogates(source) else source
    text = _USERINFO.sub("***@", text)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def size_shown(size: int) -> str:
    """A size in decimal units, one figure after the point."""
    if size < 1000:
        return f"{size} bytes"
    power = min((len(str(size)) - 1) // 3, 4)
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def _surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
