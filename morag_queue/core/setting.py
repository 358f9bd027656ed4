"""Settings as values: tables of fields with a default, limits and a meaning.

Frozen dataclasses instead of pydantic models, because every worker with the agent reads its settings: the import of
pydantic would cost each 8 MB and a tenth of its start.
"""

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import Enum
from operator import ge, gt, le
from typing import Any, get_args, get_origin

_LIMITS = {
    "gt": (gt, "greater than"),
    "ge": (ge, "greater than or equal to"),
    "le": (le, "less than or equal to"),
}
_SWITCH = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


@dataclass(frozen=True, slots=True)
class _Rule:
    description: str
    limits: tuple[tuple[str, float], ...] = ()
    pattern: str | None = None
    parse: Callable[[Any], Any] | None = None


def setting(
    default: Any = MISSING,
    *,
    description: str,
    gt: float | None = None,
    ge: float | None = None,
    le: float | None = None,
    pattern: str | None = None,
    parse: Callable[[Any], Any] | None = None,
) -> Any:
    """A field of a `Table`. `parse` converts and checks a value in place of its type; it raises ValueError."""
    limits = tuple((name, limit) for name, limit in (("gt", gt), ("ge", ge), ("le", le)) if limit is not None)
    more = {"rule": _Rule(description, limits, pattern, parse)}
    return field(default_factory=dict, metadata=more) if default == {} else field(default=default, metadata=more)


@dataclass(frozen=True)
class Table:
    """A table of settings: subclasses are frozen dataclasses, whose values are converted and checked."""

    def __post_init__(self) -> None:
        for one in fields(self):
            try:
                object.__setattr__(self, one.name, checked(one, getattr(self, one.name)))
            except ValueError as error:
                raise ValueError(f"{one.name} = {getattr(self, one.name)!r}: {error}") from None


def description(one: Field[Any]) -> str:
    """Return the meaning of a field; "" for a table."""
    rule = one.metadata.get("rule")
    return rule.description if rule is not None else ""


def checked(one: Field[Any], value: Any) -> Any:
    """Return a value in the type of its field. Raises ValueError with a message for the user: what it should be."""
    rule: _Rule | None = one.metadata.get("rule")
    if rule is None:
        return _converted(one.type, value)
    if rule.parse is not None:
        return rule.parse(value)
    found = _converted(one.type, value)
    for name, limit in rule.limits:
        holds, words = _LIMITS[name]
        if not holds(found, limit):
            raise ValueError(f"it should be {words} {limit}")
    if rule.pattern is not None and not re.fullmatch(rule.pattern, found):
        raise ValueError(f"it should match the pattern {rule.pattern}")
    return found


def _converted(kind: Any, value: Any) -> Any:
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value)
    kind = get_origin(kind) or kind
    if kind in (bool, int, float):
        return _number(kind, value)
    if issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            *most, last = (repr(member.value) for member in kind)
            raise ValueError(f"it should be {', '.join(most)} or {last}") from None
    if not isinstance(value, kind):
        raise ValueError(f"it should be {_NAMES.get(kind, 'a table')}")
    return value


_NAMES = {bool: "true or false", int: "a valid integer", float: "a valid number", str: "a valid string"}


def _tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("it should be a list")
    if kinds[-1] is ...:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"it should be a list of {len(kinds)} values")
    return tuple(map(_converted, kinds, value))


def _number(kind: type, value: Any) -> Any:
    """Convert a number, or its text in an environment variable."""
    try:
        if kind is bool:
            return value if isinstance(value, bool) else _SWITCH[str(value).strip().lower()]
        found = kind(value)
        if isinstance(value, bool) or (not isinstance(value, str) and found != value == value):
            raise ValueError
    except (ValueError, TypeError, KeyError, OverflowError):
        raise ValueError(f"it should be {_NAMES[kind]}") from None
    return found
