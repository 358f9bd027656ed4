"""The Lua scripts and their calls.

Each script in `lua/` names its keys and arguments at its top (`key`, `arg`). Its call is a dataclass with the same
names in the same order; a test compares the two. Fragments that scripts share are in `lua/lib/`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache, cached_property
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, get_args, get_origin

from .keys import Keys

if TYPE_CHECKING:
    from redis import Redis

_INCLUDE = "--#include "

_CALLS = "redis.call("

_WORD = re.compile(r"\w+")

_FUNCTION = re.compile(r"^local function (?P<name>\w+)\((?:[^\n]*\bend|.*?^end)\n", re.DOTALL | re.MULTILINE)

Key = Annotated[str, "key"]
"""The type of a field that is passed in KEYS."""

Word = str | bytes


class Call:
    """One call of a script; subclasses are frozen dataclasses.

    `KEYS` are names of `Keys` that come first; then come the fields of type `Key` as keys, and the others as arguments.
    A field of a sequence takes all remaining keys or arguments, or both where its items are dataclasses; it comes last.
    """

    SCRIPT: ClassVar[str]
    KEYS: ClassVar[tuple[str, ...]] = ()

    def words(self, keys: Keys) -> tuple[list[Word], list[Word]]:
        """The keys and the arguments, in the order of the script."""
        found: tuple[list[Word], list[Word]] = ([named_key(keys, name) for name in self.KEYS], [])
        _add(self, found)
        return found


C = TypeVar("C", bound=Call)


class Script(Generic[C]):
    """A script on one fleet. It is loaded again after SCRIPT FLUSH or a restart of the server."""

    def __init__(self, client: "Redis", keys: Keys, call: type[C]) -> None:
        self._client, self._keys, self._name = client, keys, call.SCRIPT

    @cached_property
    def _script(self) -> Any:
        # On first use: a worker that starts would read ten files that it does not need yet.
        return self._client.register_script(source(self._name))

    def __call__(self, call: C, pipe: Any = None) -> Any:
        """The answer; of a call that is added to a pipeline, the pipeline."""
        keys, args = call.words(self._keys)
        try:
            return self._script(keys=keys, args=args, client=pipe)
        except Exception as error:
            from .connection import NotLoaded

            if not NotLoaded.is_reason(error):
                raise
            raise NotLoaded.of(error) from error


def load_missing(client: "Redis") -> int:
    """Load the scripts of all roles that the server does not have; return their number."""
    texts = _texts()
    missing = [one for one, exists in zip(texts, client.script_exists(*texts), strict=True) if not exists]
    pipe = client.pipeline(transaction=False)
    for one in missing:
        pipe.execute_command("SCRIPT LOAD", texts[one])
    pipe.execute()
    return len(missing)


@cache
def _texts() -> dict[str, str]:
    """All scripts by their digests. Those of kombu come first: a worker that can register needs them next."""
    return {_sha(text): text for text in (*_of_libraries(), *map(source, names()))}


def _of_libraries() -> list[str]:
    """The scripts that kombu, Celery's result backend and the locks of redis-py send, in the installed versions."""
    import celery.backends.redis
    import kombu.transport.redis
    import redis.lock

    owners: tuple[object, ...] = (celery.backends.redis, kombu.transport.redis, redis.lock.Lock)
    return [text for owner in owners for text in vars(owner).values() if isinstance(text, str) and _CALLS in text]


@cache
def names() -> tuple[str, ...]:
    """Of all scripts."""
    found = files(__package__).joinpath("lua").iterdir()
    return tuple(sorted(file.name.removesuffix(".lua") for file in found if file.name.endswith(".lua")))


@cache
def source(name: str) -> str:
    """The text of `lua/<name>.lua`, with the functions that it uses of the fragments that it includes put before it."""
    *fragments, text = _parts(f"{name}.lua").values()
    return _used("".join(fragments), text) + text


def _used(fragments: str, text: str) -> str:
    """The fragments without the functions that are not called: the server would create each of them at every call."""
    words = Counter(_WORD.findall(fragments + text))
    for function in reversed(list(_FUNCTION.finditer(fragments))):  # one that calls another comes after it
        own = Counter(_WORD.findall(function[0]))
        if words[function["name"]] == own[function["name"]]:
            fragments = fragments[: function.start()] + fragments[function.end() :]
            words.subtract(own)
    return fragments


@cache
def sha(name: str) -> str:
    """The digest that EVALSHA takes."""
    return _sha(source(name))


def _sha(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def _parts(path: str) -> dict[str, str]:
    """By file, in order; each fragment once."""
    text = files(__package__).joinpath("lua", path).read_text("utf-8")
    first, _, rest = text.partition("\n")
    if not first.startswith(_INCLUDE):
        return {path: text}
    included: dict[str, str] = {}
    for name in first.removeprefix(_INCLUDE).split():
        included |= _parts(f"lib/{name}.lua")
    return {**included, path: rest}


def named_key(keys: Keys, name: str) -> str:
    """Also of families such as `minutes`: the prefix, which the script completes."""
    if name in ("minutes", "hours"):
        return str(getattr(keys, name.removesuffix("s"))(0)).removesuffix("0")
    if name in ("bells", "tasks", "ids", "ended"):
        return str(getattr(keys, {"bells": "bell", "tasks": "task"}.get(name, name))(""))
    return str(getattr(keys, name))


def item_type(annotation: Any) -> Any:
    """The type of a sequence's items; None for another type."""
    return get_args(annotation)[0] if get_origin(annotation) is Sequence else None


def _add(record: Any, found: tuple[list[Word], list[Word]]) -> None:
    for name, place, item in _fields(record.__class__):
        value = getattr(record, name)
        if item is None:
            found[place].append(_word(value))
        elif is_dataclass(item):
            for one in value:
                _add(one, found)
        else:
            found[place].extend(map(_word, value))


@cache
def _fields(kind: type) -> list[tuple[str, int, Any]]:
    """Of each field: its name, 0 for keys or 1 for arguments, and the type of a sequence's items."""
    items = [(field, item_type(field.type)) for field in fields(kind)]
    return [(field.name, 0 if Key in (field.type, item) else 1, item) for field, item in items]


def _word(value: Any) -> Word:
    """A value as the scripts read it: None is '', a boolean '1' or '0', a float is exact."""
    if type(value) is str:  # most are
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return value if isinstance(value, bytes) else str(value)
