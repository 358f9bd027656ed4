"""Write morag_queue/data/completion.json, the words that shell completion offers, from the commands themselves.

python -m tests.support.completion_table
"""

import inspect
import json
from collections.abc import Mapping
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import morag_queue
from morag_queue.cli import VERBS
from morag_queue.cli.completion_scripts import SCRIPTS
from morag_queue.cli.run import LazyVerb, build_group
from morag_queue.core.model import QueuePriority, QueueType

PATH = Path(morag_queue.__file__).with_name("data") / "completion.json"

_PRIORITIES = f"={','.join(priority.name for priority in QueuePriority)}"
_KINDS = {
    "W": ["worker"],
    "Q": ["queue"],
    "L": ["lane"],
    "P": [_PRIORITIES],
    "ID": ["task"],
    "ENTRY": ["journal_entry"],
    "VERB": ["journal_verb"],
    "[ID…] PRIORITY": [_PRIORITIES, "open_task"],
    **{metavar: ["file"] for metavar in ("FILE", "FILE|-", "DIR", "PATH|URL")},
}
"""What completes a value, by its metavar: names on the broker, `=` and fixed values, or file names."""

_SPECIAL = {
    ("submit", "ID"): [],  # the id of a new task
    ("dead", "ID"): ["dead_letter"],
    ("dead", "--state"): ["=failed,quarantined"],
    ("resume", "Q"): ["paused_queue"],
    ("uncordon", "W"): ["cordoned_worker"],
    ("task cancel", "ID"): ["open_task"],
    ("task move", "ID"): ["open_task"],
    ("task retry", "ID"): ["ended_task"],
}
"""Exceptions: (verb or command, metavar or option) → kinds."""


def table() -> dict[str, Any]:
    """Command → its help, arguments and options. The root "" also has the fixed names of the queues."""
    root = build_group(VERBS)
    rows = {"": _row("", root, {}) | {"values": {"queue": [queue.value for queue in QueueType]}}}
    for name, (target, summary) in VERBS.items():
        module, _, attribute = target.partition(":")
        loaded, command = getattr(import_module(module), attribute), LazyVerb(name, target, summary).load()
        if not isinstance(loaded, Mapping):
            rows[name] = _row(name, command, _annotations(loaded), summary)
            continue
        rows[name] = _row(name, command, {}, summary)
        for part, function in loaded.items():
            inner = command.commands[part]  # type: ignore[union-attr]
            rows[f"{name} {part}"] = _row(f"{name} {part}", inner, _annotations(function))
    return rows


def text() -> str:
    """The file: one line per argument and option, so that changes merge."""
    commands = []
    for name, row in table().items():
        lines = [f'  "help": {_json(row["help"])},']
        if "values" in row:
            lines.append(f'  "values": {_json(row["values"])},')
        arguments = ",\n".join(f"    {_json(argument)}" for argument in row["arguments"])
        options = ",\n".join(f"    {_json(option)}: {_json(value)}" for option, value in row["options"].items())
        lines += [f'  "arguments": [\n{arguments}\n  ],' if arguments else '  "arguments": [],']
        lines += [f'  "options": {{\n{options}\n  }}']
        commands.append(f"{_json(name)}: {{\n" + "\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(commands) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _annotations(function: Any) -> Mapping[str, Any]:
    return {name: parameter.annotation for name, parameter in inspect.signature(function).parameters.items()}


def _row(name: str, command: Any, annotations: Mapping[str, Any], summary: str = "") -> dict[str, Any]:
    arguments: list[Any] = []
    options: dict[str, Any] = {}
    for parameter in command.params:
        value = {"kinds": _kinds(name, parameter, annotations.get(parameter.name))}
        many = {"many": True} if parameter.nargs == -1 or getattr(parameter, "multiple", False) else {}
        if parameter.param_type_name == "argument":
            arguments.append(value | many)
        else:
            takes = {} if parameter.is_flag else value
            options |= {option: {"help": parameter.help or "", **takes, **many} for option in parameter.opts}
    options["--help"] = {"help": "Show this message and exit."}
    first_line = (summary or command.help or "").strip().partition("\n")[0]
    return {"help": first_line, "arguments": arguments, "options": options}


def _kinds(name: str, parameter: Any, annotation: Any) -> list[str]:
    metavar = (parameter.metavar or "").removesuffix("…")
    for key in (name, name.partition(" ")[0]):
        for what in (metavar, *parameter.opts):
            if (key, what) in _SPECIAL:
                return _SPECIAL[key, what]
    types = [one for part in (annotation, *get_args(annotation)) for one in (part, *get_args(part))]
    choices = next((one for one in types if isinstance(one, type) and issubclass(one, Enum)), None)
    if choices is QueueType:
        return ["queue"]
    if choices is not None:
        return [f"={','.join(member.value for member in choices)}"]
    return _KINDS.get(metavar, [])


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
    completions = Path(morag_queue.__file__).parents[1] / "completions"
    for shell, file in {"bash": "morag-queue.bash", "zsh": "_morag-queue", "fish": "morag-queue.fish"}.items():
        (completions / file).write_text(SCRIPTS[shell], encoding="utf-8")
