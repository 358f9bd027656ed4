"""The settings file that `config init` writes: every key with its default and its meaning.

Keys are commented out, so that the file changes nothing and a later version may change a default. The meanings are the
descriptions of the fields, those of tables the first lines of the docstrings.
"""

import json
from collections.abc import Iterator
from dataclasses import fields
from enum import Enum
from typing import Any

from morag_queue.core.setting import Table, description

from .model import Settings

_HEAD = """\
# Settings of morag-queue. Every key is shown with its default: remove the # in front of a key to change it.
# A flag or an environment variable overrides this file: MORAG_QUEUE_POLICY__MAX_RETRIES is policy.max_retries.
# `morag-queue config check` checks the file, `morag-queue config show` prints each value and its origin.
"""
_CHOICES_SHOWN = 3
_TAIL = """
# Profiles override the keys above if chosen with --profile NAME or MORAG_QUEUE_PROFILE; keys are the same:
#
# [profiles.prod]
# redis_url = "rediss://broker.example.org:6379/0"
#
# [profiles.prod.policy]
# max_retries = 5
"""


def template() -> str:
    """Return the text of the file."""
    return "".join([_HEAD, *_table(Settings(), ""), _TAIL])


def _table(table: Table, name: str) -> Iterator[str]:
    values = vars(table)
    tables = {key: value for key, value in values.items() if isinstance(value, Table)}
    meanings = {field.name: description(field) for field in fields(table) if field.name not in tables}
    comment = f"\n# {meaning(type(table))}\n" if name else "\n"
    yield comment + (f"[{name}]\n" if name and meanings else "")
    for key, text in meanings.items():  # before the tables: in TOML a key belongs to the table above it
        yield f"#{key} = {_toml(values[key])}  # {text}{_choices(values[key])}\n"
    for key, inner in tables.items():
        yield from _table(inner, f"{name}.{key}".lstrip("."))


def meaning(table: type[Table]) -> str:
    """Return the first line of a table's docstring."""
    return (table.__doc__ or "").strip().partition("\n")[0]


def _toml(value: Any) -> str:
    # JSON of strings, numbers and lists is TOML; a table is empty by default.
    return json.dumps(value, default=str)


def _choices(value: Any) -> str:
    """Return the values of an enumeration, unless they would make the line too long."""
    if not isinstance(value, Enum) or len(type(value)) > _CHOICES_SHOWN:
        return ""
    return f": {' or '.join(_toml(choice) for choice in type(value))}"
