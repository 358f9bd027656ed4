"""Every script names its keys and arguments as its call in Python does, in the same order."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.resources import files
from pkgutil import iter_modules
from typing import Any

import pytest

import morag_queue.agent.claim_request
import morag_queue.broker
from morag_queue.broker.keys import Keys
from morag_queue.broker.scripts import Call, Key, item_type, sha, source

LUA = files("morag_queue.broker").joinpath("lua")
SCRIPTS = sorted(file.name.removesuffix(".lua") for file in LUA.iterdir() if file.name.endswith(".lua"))
FRAGMENTS = sorted(file.name.removesuffix(".lua") for file in LUA.joinpath("lib").iterdir())

_NAMED = re.compile(r"(\w+) = (?:(KEYS|ARGV)\[(\d+)\]|rest\((KEYS|ARGV), (\d+)\))")
_LOCALS = re.compile(r"local ([\w,\s]+?) = unpack\((KEYS|ARGV)\)")
_IN_PLACE = re.compile(r"local \w+ = (\d+)  -- (KEYS|ARGV) (\w+)(?: \{([^}]*)\})?")
_RECORDS = re.compile(r"records\((?:key\.(\w+)|\{\}), \{([^}]*)\}, arg\.(\w+),\s+\{([^}]*)\}\)")


def _calls() -> dict[str, type[Call]]:
    for module in iter_modules(morag_queue.broker.__path__, "morag_queue.broker."):
        import_module(module.name)
    return {call.SCRIPT: call for call in Call.__subclasses__()}


CALLS = _calls()


def head(name: str) -> dict[str, list[str]]:
    """The names at the top of a script: KEYS, ARGV, and `KEYS <tail>` and `ARGV <tail>` for the fields of records."""
    text = LUA.joinpath(f"{name}.lua").read_text("utf-8")
    found: dict[str, list[str]] = {"KEYS": [], "ARGV": []}
    for part, which, number, rest_of, first in _NAMED.findall(text):
        found[which or rest_of].append(part if which else f"{part}...")
        assert int(number or first) == len(found[which or rest_of]), f"{name}.lua: {part} has a wrong number"
    for names, which in _LOCALS.findall(text):
        found[which] += re.findall(r"\w+", names)
    for first, which, part, names in _IN_PLACE.findall(text):
        found[which].append(f"{part}...")
        assert int(first) == len(found[which]), f"{name}.lua: {part} has a wrong number"
        if names:
            found[f"{which} {part}"] = re.findall(r"'(\w+)'", names)
    for key_tail, key_names, arg_tail, arg_names in _RECORDS.findall(text):
        found[f"ARGV {arg_tail}"] = re.findall(r"'(\w+)'", arg_names)
        if key_tail:
            found[f"KEYS {key_tail}"] = re.findall(r"'(\w+)'", key_names)
    return found


def signature(call: type[Call]) -> dict[str, list[str]]:
    """The same of a call."""
    found: dict[str, list[str]] = {"KEYS": [*call.KEYS], "ARGV": []}
    for name, which in _described(call, found):
        found[which].append(name)
    return found


def _described(call: type[Call], found: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    for field in fields(call):
        item: Any = item_type(field.type)
        if item is None:
            yield field.name, "KEYS" if field.type == Key else "ARGV"
        elif not is_dataclass(item):
            yield f"{field.name}...", "KEYS" if item == Key else "ARGV"
        else:
            for which, is_key in (("KEYS", True), ("ARGV", False)):
                names = [part.name for part in fields(item) if (part.type == Key) is is_key]
                if names:
                    yield f"{field.name}...", which
                    found[f"{which} {field.name}"] = names


def test_every_script_has_one_call_and_every_call_a_script() -> None:
    assert sorted(CALLS) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_names_its_keys_and_arguments_as_its_call_does(name: str) -> None:
    assert head(name) == signature(CALLS[name])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_remaining_part_is_named_last(name: str) -> None:
    for names in head(name).values():
        assert not [part for part in names[:-1] if part.endswith("...")]


@pytest.mark.parametrize(
    "name", [*(name for name in SCRIPTS if name != "claim"), *(f"lib/{name}" for name in FRAGMENTS)]
)
def test_keys_and_arguments_are_used_by_name_outside_of_the_head(name: str) -> None:
    text = re.sub(r"--.*", "", LUA.joinpath(f"{name}.lua").read_text("utf-8"))
    assert not re.search(r"\b(KEYS|ARGV)\b", _LOCALS.sub("", _NAMED.sub("", text)))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_key_and_argument_that_a_script_reads_is_named(name: str) -> None:
    """Also those that its fragments read: `submit` includes the counters, but ends no task."""
    code = re.sub(r"--.*", "", source(name))
    unused = {"sub", "totals"} if name == "submit" else {"sub"}
    unused |= {"counted_minute", "folded", "this_minute"}  # names that `counters` adds
    for table, which in (("key", "KEYS"), ("arg", "ARGV")):
        named = {part.removesuffix("...") for part in head(name)[which]}
        assert set(re.findall(rf"\b{table}\.(\w+)", code)) - unused <= named


@pytest.mark.parametrize("name", FRAGMENTS)
def test_every_fragment_is_included_by_some_script(name: str) -> None:
    texts = {script: source(script) for script in SCRIPTS}
    fragment = LUA.joinpath(f"lib/{name}.lua").read_text("utf-8").partition("\n")[2]
    assert any(fragment in text for text in texts.values())


def test_a_fragment_is_included_once_however_often_it_is_named() -> None:
    assert source("requeue").count("local function quoted(") == 1
    assert len(sha("requeue")) == 40


def test_the_keys_of_families_are_prefixes_that_the_script_completes() -> None:
    keys = Keys("fleet", "app:", "::")
    words, _ = CALLS["submit"]("", 0, []).words(keys)  # type: ignore[call-arg]
    counters = [keys.current, "app:fleet:minute:", "app:fleet:hour:", keys.figures]
    assert words == [keys.lanes, *counters, "app:fleet:ids:", "app:fleet:task:", keys.journal]
    assert keys.minute(60 * 7) == "app:fleet:minute:7"
