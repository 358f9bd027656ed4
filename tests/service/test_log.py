"""The events of the loop in the log of a service."""

import logging

import pytest

from morag_queue.service.log import ServiceLog
from morag_queue.watch.events import Event


def test_an_event_becomes_a_log_record_with_safe_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "morag_queue.watch"):
        ServiceLog()(Event.JOINED, worker="cpu-1\nforged", lanes=["a", "b"])
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("morag_queue.watch", "INFO")
    assert record.getMessage() == r"worker_joined worker=cpu-1\nforged lanes=a; b"
    assert (record.event, record.fields) == ("worker_joined", {"worker": r"cpu-1\nforged", "lanes": ["a", "b"]})  # type: ignore[attr-defined]
