"""Kinds of garbage: texts that no reader expects, and fields of a known record with values that no reader expects."""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

DEPTH = 200_000
LARGE = 10_000_000
MARK = Path("/tmp/morag-queue-garbage-was-executed")
"""A file that only the pickle below creates, when it is loaded."""


class _Attack:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (str(MARK), "w")


TEXTS: Mapping[str, bytes] = {
    "word": b"x",
    "empty": b"",
    "cut": b'{"state": "queued", ',
    "null": b"null",
    "number": b"1",
    "list": b"[]",
    "object": b"{}",
    "text": b'"queued"',
    "huge number": b"9" * 400,
    "infinite": b"1e400",
    "nan": b"NaN",
    "nan inside": b'{"at": NaN, "term": Infinity, "state": -Infinity}',
    "list of lists": b"[[], [[]], {}, null, 1e308]",
    "deep list": b"[" * DEPTH + b"]" * DEPTH,
    "deep object": b'{"at":' * DEPTH + b"1" + b"}" * DEPTH,
    "deep inside": b'{"headers": {"id": ' + b"[" * 2000 + b"]" * 2000 + b"}}",
    "nul": b'{"at": "\x00"}\x00\x00',
    "not utf-8": b"\xff\xfe\x80{\xc3",
    "pickle": pickle.dumps(_Attack()),
    "escapes": b'\x1b[2J\x1b]0;title\x07\r\nerror: forged\n{"exit": 0}\xe2\x80\xae',
    "surrogates": rb'{"state": "\ud800", "worker": "\udfff\ud800"}',
    "separators": b"|||||\x06\x16|a|b|" + b":" * 30,
    "digits": "٣²½".encode(),
}  # fmt: skip
"""By name. Each is used as a whole value, as the name of a field and as a member of a set."""

LARGE_TEXTS: Mapping[str, bytes] = {
    "10 MB": b"x" * LARGE,
    "10 MB of JSON": b'{"state": "' + b"x" * LARGE + b'"}',
    "10 MB of brackets": b"[" * LARGE,
    "10 MB of quotes": b'"\\' * (LARGE // 2),
}

WRONG: Mapping[str, Any] = {
    "null": None,
    "a list": [],
    "lists": [[None]],
    "an object": {"a": {}},
    "deep lists": json.loads("[" * 900 + "]" * 900),
    "a word": "x\x1b[31m\ud800\x00",
    "minus one": -1,
    "a fraction": 0.5,
    "a large number": 10**30,
    "a huge number": 10**400,
    "infinity": float("inf"),
    "not a number": float("nan"),
    "true": True,
}
"""By name: values of a field of a JSON record."""


def changed_fields(text: bytes, wrong: Any) -> Iterator[bytes]:
    """Yield the record with one field, at any depth, replaced by the value, for each field; then with all replaced."""
    try:
        record = json.loads(text)
    except ValueError:
        return
    for path in _paths(record):
        changed = json.loads(text)
        parent = changed
        for step in path[:-1]:
            parent = parent[step]
        parent[path[-1]] = wrong
        yield json.dumps(changed).encode()
    if isinstance(record, dict):
        yield json.dumps(dict.fromkeys(record, wrong)).encode()
    elif isinstance(record, list):
        yield json.dumps([wrong] * len(record)).encode()


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield (name,)
        yield from ((name, *rest) for rest in _paths(item))
