"""Names as a person may see them: no control character reaches a terminal, no password a screen."""

import re

_USERINFO = re.compile(r"(?<=://)[^/?#@]*@")


def shown(source: str) -> str:
    """The source for a message: control characters and bytes that are not UTF-8 as escapes, no log-in of a URL."""
    text = _USERINFO.sub("***@", source)
    return text if text.isprintable() else "".join(map(_escaped, text))


def size_shown(size: int) -> str:
    """A size in decimal units, one figure after the point."""
    if size < 1000:
        return f"{size} bytes"
    power = min((len(str(size)) - 1) // 3, 4)
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # how Python carries a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
