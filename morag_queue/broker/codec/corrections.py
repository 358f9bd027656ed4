"""Corrections of the estimates as text: `<content type>|<requires>|<1 on a GPU, else 0>` -> `[runs, m]`."""

import json
from collections.abc import Mapping

from morag_queue.core.enums import ContentType, Requires
from morag_queue.core.estimate import Correction

from .fields import json_object, number

_LARGEST = 20.0
"""Of the logarithm of a factor: e²⁰ times as long as estimated."""

WorkKind = tuple[ContentType, Requires, bool]
"""A kind of work and of worker: the content, what it requires, and whether the worker has a GPU."""


def read_corrections(text: bytes | str) -> dict[WorkKind, Correction]:
    """Read the corrections, without those that cannot be read."""
    found = {}
    for field, value in (json_object(text) or {}).items():
        kind = read_work_kind(field)
        n, m = map(number, value) if isinstance(value, list) and len(value) == 2 else (None, None)
        if kind is not None and n is not None and m is not None and n >= 0 and abs(m) <= _LARGEST:
            found[kind] = Correction(n=int(n), m=m)
    return found


def write_corrections(known: Mapping[WorkKind, Correction]) -> str:
    return json.dumps(
        {
            f"{content_type}|{requires}|{int(on_gpu)}": [correction.n, round(correction.m, 6)]
            for (content_type, requires, on_gpu), correction in known.items()
        }
    )


def read_work_kind(field: str) -> WorkKind | None:
    try:
        content_type, requires, on_gpu = field.split("|")
        return ContentType(content_type), Requires(requires), on_gpu == "1"
    except ValueError:
        return None
