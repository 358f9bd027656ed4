"""Answer the completion scripts of the shells: verbs, options, their values, and names that exist on the broker.

Verbs and options are read from data/completion.json, which `python -m tests.support.completion_table` writes: to build
the commands takes 0.3 s, because typer imports pydantic. Nothing is ever written to stderr; without a broker, the names
on it are left out.
"""

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from threading import Thread
from typing import Any, NoReturn

from .context import Environment

BROKER_SECONDS = 0.5
"""How long a completion waits for the broker, whether it resolves a name, connects or reads."""

_SETTINGS = (
    "redis_url",
    "namespace",
    *(f"broker.{name}" for name in ("sep", "global_keyprefix", "master_name", "sentinel_kwargs")),
)
_LONGEST_DESCRIPTION = 60

Offer = tuple[str, str]
"""What can be typed, and a description for shells that show one."""


@dataclass
class Line:
    """What the words before the unfinished one mean. `kinds`: of the value to be completed."""

    command: str = ""
    options: dict[str, str] = field(default_factory=dict)
    values: list[str] = field(default_factory=list)
    kinds: Sequence[str] | None = None
    options_ended: bool = False


def main(shell: str, args: Sequence[str], environment: Environment) -> NoReturn:
    """Print the answer and exit, see `answer`."""
    environment.stdout.write("".join(f"{row}\n" for row in answer(shell, args, environment)))
    environment.stdout.flush()
    os._exit(0)  # do not wait for a thread that a slow broker blocks


def answer(shell: str, args: Sequence[str], environment: Environment) -> list[str]:
    """Return `words` and the offers with their descriptions, or `files` if the shell should offer file names.

    `args` are the words after the command up to the cursor, the last one unfinished and in fish still quoted; bash
    passes its line up to the cursor and COMP_WORDBREAKS instead.
    """
    words = split_line(args[0])[1:] if shell == "bash" else list(args)
    *before, unfinished = words or [""]
    if shell == "fish":
        unfinished = split_line(unfinished)[-1]
    table = json.loads(files("morag_queue").joinpath("data", "completion.json").read_text("utf-8"))
    line = read_line(table, before)
    option, equals, value = unfinished.partition("=")
    if equals and option.startswith("--") and not line.options_ended and line.kinds is None:
        line.kinds = _option(table, line, option).get("kinds", ())
        offers = [(f"{option}={name}", text) for name, text in _values(table, line, value, environment)]
    else:
        offers = list(complete(table, line, unfinished, environment))
    takes_files = "file" in (line.kinds or ()) and not offers
    return ["files" if takes_files else "words", *_rows(shell, args, unfinished, offers)]


def read_line(table: Mapping[str, Any], words: Iterable[str]) -> Line:
    """Interpret the words before the unfinished one."""
    line, pending = Line(), ""
    for word in words:
        if pending:
            line.options[pending], pending = word, ""
        elif word == "--" and not line.options_ended:
            line.options_ended = True
        elif word.startswith("-") and len(word) > 1 and not line.options_ended:
            name, equals, value = word.partition("=")
            line.options[name] = value
            pending = name if not equals and "kinds" in _option(table, line, name) else ""
        elif (command := f"{line.command} {word}".strip()) in table:
            line.command = command
        else:
            line.values.append(word)
    line.kinds = _option(table, line, pending)["kinds"] if pending else None
    return line


def complete(table: Mapping[str, Any], line: Line, unfinished: str, environment: Environment) -> Iterator[Offer]:
    """Offer values; options if the word begins with a dash, or if no value can follow."""
    if line.kinds is not None:
        yield from _values(table, line, unfinished, environment)
        return
    command = table[line.command]
    if not (unfinished.startswith("-") and not line.options_ended):
        start = f"{line.command} ".lstrip()
        inner = [name for name in table if name and name.rpartition(" ")[0] == line.command]
        if inner:
            named = ((name.removeprefix(start), table[name]["help"]) for name in inner)
            yield from _matching(unfinished, named if not line.values else ())
            return
        line.kinds = _argument(command["arguments"], len(line.values))
        if line.kinds is not None:
            yield from _values(table, line, unfinished, environment)
            return
    for name, option in command["options"].items():
        is_given = name in line.options and not option.get("many")
        if name.startswith("--") and name.startswith(unfinished) and not is_given:
            yield name, option["help"]


def _option(table: Mapping[str, Any], line: Line, name: str) -> Mapping[str, Any]:
    option: Mapping[str, Any] = table[line.command]["options"].get(name, {})
    return option


def _argument(arguments: Sequence[Mapping[str, Any]], given: int) -> Sequence[str] | None:
    """The kinds of the next argument; None where no other follows."""
    if arguments and given >= len(arguments) and arguments[-1].get("many"):
        given = len(arguments) - 1
    return arguments[given]["kinds"] if given < len(arguments) else None


def _values(table: Mapping[str, Any], line: Line, beginning: str, environment: Environment) -> Iterator[Offer]:
    """Offer the values of `line.kinds`: fixed ones, and names on the broker that are not given yet."""
    kinds = line.kinds or ()
    fixed = table[""]["values"]
    live = [kind for kind in kinds if kind != "file" and not kind.startswith("=")]
    for kind in kinds:
        yield from _matching(beginning, ((name, "") for name in kind.removeprefix("=").split(",") if kind[0] == "="))
    found = _live(live, line, beginning, fixed["queue"], environment) if live else []
    if "queue" in live and not found:
        found = [*_matching(beginning, ((queue, "") for queue in fixed["queue"]))]
    yield from ((name, text) for name, text in found if name not in line.values)


def _live(
    kinds: Sequence[str], line: Line, beginning: str, queues: Sequence[str], environment: Environment
) -> list[Offer]:
    """Read names from the broker for at most `BROKER_SECONDS`, in a thread: name resolution has no timeout."""
    found: list[Offer] = []

    def read() -> None:
        from morag_queue.broker.completion_names import LIMIT, Names
        from morag_queue.broker.keys import Keys
        from morag_queue.broker.light_client import LightClient
        from morag_queue.settings.locations import DEFAULT_URL, unchecked_values

        flags = {name.removeprefix("--").replace("-", "_"): value for name, value in line.options.items() if value}
        if "config" in flags:
            flags["config"] = os.path.expanduser(flags["config"])
        given = unchecked_values(_SETTINGS, flags, environment.variables, environment.cwd)
        names = {"namespace": "namespace", "broker.global_keyprefix": "prefix", "broker.sep": "sep"}
        keys = Keys(**{name: str(given[key]) for key, name in names.items() if key in given})
        url, master = given.get("redis_url", DEFAULT_URL), given.get("broker.master_name", "mymaster")
        login = given.get("broker.sentinel_kwargs")
        with LightClient(url, BROKER_SECONDS, master=master, sentinel=login) as client:
            for kind in kinds:
                found.extend(islice(Names(client, keys, queues).readers[kind](beginning), LIMIT))

    def read_silently() -> None:
        with suppress(Exception):  # a completion must not fail, whatever the broker or the settings hold
            read()

    thread = Thread(target=read_silently, daemon=True)
    thread.start()
    thread.join(BROKER_SECONDS)
    return list(found)


def _matching(beginning: str, offers: Iterable[Offer]) -> Iterator[Offer]:
    return ((name, text) for name, text in offers if name.lower().startswith(beginning.lower()))


def _rows(shell: str, args: Sequence[str], unfinished: str, offers: Iterable[Offer]) -> Iterator[str]:
    """One row per offer that can be shown and typed; bash gets the part of the word that it replaces, quoted."""
    from morag_queue.view.text import safe

    for name, text in offers:
        if not name.isprintable():
            continue
        if shell == "bash":
            yield bash_word(name, unfinished, args[0], args[1])
        else:
            yield f"{name}\t{safe(text, _LONGEST_DESCRIPTION)}"


def bash_word(name: str, unfinished: str, line: str, breaks: str) -> str:
    """Return what bash must insert for `name`: it replaces only the text after an open quote or a word break."""
    quote = _open_quote(line)
    if quote:
        return name
    start = max((unfinished.rfind(sign) for sign in breaks if not sign.isspace() and sign not in "\"'"), default=-1)
    if name[: start + 1] != unfinished[: start + 1]:
        start = -1
    return "".join(sign if sign.isalnum() or sign in _PLAIN else f"\\{sign}" for sign in name[start + 1 :])


_PLAIN = "-_./:@%+=,~"


def _open_quote(line: str) -> str:
    """Return the quote that is open at the end of a line, "" without one."""
    quote, escaped = "", False
    for sign in line:
        if escaped:
            escaped = False
        elif sign == "\\" and quote != "'":
            escaped = True
        elif sign == quote:
            quote = ""
        elif sign in "\"'" and not quote:
            quote = sign
    return quote


def split_line(line: str) -> list[str]:
    """Split what was typed up to the cursor into words; the last one is unfinished and may have an open quote."""
    lexer = shlex.shlex(f"{line}x", posix=True)  # the x makes an empty last word visible
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:  # an open quote
        words.append(lexer.token)
    return [*words[:-1], words[-1][:-1]]
