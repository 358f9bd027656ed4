"""The tables in the README that are written by programs.

`python -m tests.support.readme` writes the table of commands from the help texts, `python -m tests.bench --readme` the
speed table, `python -m tests.faults --readme` the fault table.
"""

from pathlib import Path

from typer.core import TyperGroup

from morag_queue.cli import VERBS
from morag_queue.cli.run import LazyVerb, build_group

README = Path(__file__).parents[2] / "README.md"
_COMMANDS = "<!-- Written by `python -m tests.support.readme`. -->\n", "<!-- End of the table of commands. -->\n"
_SPEED = "<!-- Written by `python -m tests.bench --readme`. -->\n", "<!-- End of the speed table. -->\n"
_FAULTS = "<!-- Written by `python -m tests.faults --readme`. -->\n", "<!-- End of the fault table. -->\n"


def commands_table() -> str:
    """Return a row for each command: its name and the first sentence of its help."""
    rows = ["| command | what it does |", "|---|---|"]
    for name, verb in build_group(VERBS).commands.items():
        assert isinstance(verb, LazyVerb)
        loaded = verb.load()
        if isinstance(loaded, TyperGroup):
            rows += [_row(f"{name} {sub}", command.get_short_help_str(200)) for sub, command in loaded.commands.items()]
        else:
            rows.append(_row(name, str(verb.help)))
    return "\n".join(rows) + "\n"


def _row(name: str, summary: str) -> str:
    return f"| `{name}` | {summary.rstrip('.')} |"


def with_table(text: str) -> str:
    """Return the README with the present table of commands. Raises ValueError if it has no place for it."""
    return _replaced(text, _COMMANDS, commands_table())


def with_speed_table(text: str, table: str) -> str:
    """Return the README with that speed table. Raises ValueError if it has no place for it."""
    return _replaced(text, _SPEED, table)


def with_fault_table(text: str, table: str) -> str:
    """Return the README with that fault table. Raises ValueError if it has no place for it."""
    return _replaced(text, _FAULTS, table)


def _replaced(text: str, marks: tuple[str, str], table: str) -> str:
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"the README needs the lines {marks[0]!r} and {marks[1]!r}")
    return f"{before}{begin}{table}{end}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
