"""Corrections of the estimates as text: `<content type>|<requires>|<1 on a GPU, else 0>` -> `[runs, m]`."""

import json
from collections.abc import Mapping

from morag_queue.core.enums import ContentType, Requires
from morag_queue.core.estimate import Correction

WorkKind = tuple[ContentType, Requires, bool]
"""A kind of work and of worker: the content, what it requires, and whether the worker has a GPU."""


def read_corrections(text: bytes | str) -> dict[WorkKind, Correction]:
    """Read the corrections; none where the text is another version's."""
    try:
        fields = json.loads(text) if text else {}
        read = {read_work_kind(field): Correction(n=n, m=m) for field, (n, m) in fields.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {kind: correction for kind, correction in read.items() if kind is not None}


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
