"""The table of commands in the README, from the help texts: `python -m tests.support.readme` writes it again."""

from pathlib import Path

from typer.core import TyperGroup

from morag_queue.cli import VERBS
from morag_queue.cli.run import LazyVerb, build_group

README = Path(__file__).parents[2] / "README.md"
_BEGIN, _END = "<!-- Written by `python -m tests.support.readme`. -->\n", "<!-- End of the table of commands. -->\n"


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
    """Return the README with the present table. Raises ValueError if it has no place for it."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the README needs the lines {_BEGIN!r} and {_END!r}")
    return f"{before}{begin}{commands_table()}{end}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
