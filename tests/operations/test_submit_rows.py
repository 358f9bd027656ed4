"""Rows of JSON lines, and the tasks made from them."""

import json
from uuid import UUID

import pytest

from morag_queue.core.model import ContentType
from morag_queue.operations.submit_rows import Row, RowFailure, parse_lines, row_of
from morag_queue.operations.submit_rows import _new_id as new_id

LINES = [
    b'{"source": "a.txt", "content_type": "audio", "options": {"x": [2.5, null, {"y": "\\u00e9"}]}}',
    b'{"source": "a.txt", "priority": "high", "args": [1, "2"], "kwargs": {"a": 1e400}, "estimated_duration": "1.5"}',
    b'{"source": "a.txt", "source": "b.txt", "estimated_duration": 0.1}',
    b'{"source": "a.txt", "options": {"big": 123456789012345678901234567890, "exact": 0.1, "small": 5e-324}}',
    b'{"source": "a.txt", "options": {"number": NaN}}',
    b'{"source": "a.txt", "options": {"emoji": "\\ud83d\\ude00"}, "requires": "gpu", "queue": "cpu_batch"}',
    b'  {"source": "caf\xc3\xa9.txt"}\r\n',
    b'{"source": "a.txt", "options": {"half": "\\ud800"}}',
    b'{"source": "\\ud800"}',
    b'{"source": "a\xff.txt"}',
    b'{"source": "a.txt", "options": ' + b"[" * 300 + b"]" * 300 + b"}",
    b'{"source": "a.txt", "options": ' + b'{"a": ' * 300 + b"1" + b"}" * 300 + b"}",
    b'{"source": ""}',
    b'{"source": 5, "worker": "", "colour": "red"}',
    b'{"priority": "soon"}',
    b'["a.txt"]',
    b"null",
    b"a.txt",
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:40].decode("latin-1"))
def test_a_line_is_read_the_same_with_and_without_flags(line: bytes) -> None:
    """Without flags the text is validated at once; with flags it is decoded and merged with them."""
    flags = row_of("-", {"task_id": "t"})
    ((_, plain),) = parse_lines([line], row_of("-", {}))
    ((_, merged),) = parse_lines([line], flags)
    if isinstance(merged, Row):
        assert isinstance(plain, Row)
        assert repr(plain.model_copy(update={"task_id": "t"})) == repr(merged)  # NaN differs from itself
    else:
        assert plain == merged


def test_fields_of_a_line_are_read_with_their_types() -> None:
    ((number, row),) = parse_lines(LINES[:1], row_of("-", {}))
    assert number == 1
    assert isinstance(row, Row)
    assert (row.content_type, row.priority) == (ContentType.AUDIO, None)
    assert row.options == {"x": [2.5, None, {"y": "é"}]}


def test_a_line_that_is_no_row_is_a_failure_with_its_number() -> None:
    rows = list(parse_lines([b"\n", json.dumps({"source": "a", "prio": 1}).encode()], row_of("-", {})))
    ((number, failure),) = rows
    assert number == 2
    assert isinstance(failure, RowFailure)
    assert failure.error.startswith("prio is not a field of a row; there are source, content_type, priority")


def test_new_ids_are_random_uuids() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {(str(UUID(text)) == text, UUID(text).version, UUID(text).variant) for text in ids} == {
        (True, 4, "specified in RFC 4122")
    }
