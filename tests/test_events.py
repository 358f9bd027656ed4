"""The table of events and the format of log lines."""

import io
import json
import re

import pytest

from morag_queue.watch.events import EVENTS, Event
from morag_queue.watch.log import Log


def written(event: Event, *, json: bool = False, quiet: bool = False, debug: bool = False, **fields: object) -> str:
    stream = io.StringIO()
    Log(stream, json=json, quiet=quiet, debug=debug)(event, **fields)
    return stream.getvalue()


def test_every_event_has_a_row_with_a_description():
    assert set(EVENTS) == set(Event)
    assert all(spec.description for spec in EVENTS.values())


@pytest.mark.parametrize("event", Event)
def test_event_names_are_snake_case_and_durations_have_a_unit(event):
    assert event.value == event.value.lower().replace("-", "_")
    assert len(set(EVENTS[event].fields)) == len(EVENTS[event].fields)
    assert not {"time", "duration", "wait", "age"} & set(EVENTS[event].fields)


def test_a_line_is_key_equals_value_by_default():
    at, fields = written(Event.JOINED, worker="worker-cpu-1").split(" ", 1)
    assert fields == "level=info event=worker_joined worker=worker-cpu-1\n"
    assert re.fullmatch(r"at=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", at), "the user's zone, to the second"


def test_a_json_line_is_one_object():
    line = written(Event.TURN, json=True, moved=3, rules={"spill": 3}, seconds=0.0123456)
    fields = json.loads(line)
    assert line.count("\n") == 1
    assert fields.pop("at").endswith("Z")
    assert fields == {"event": "turn", "level": "info", "moved": 3, "rules": {"spill": 3}, "seconds": 0.0123}


def test_lists_and_mappings_are_flattened_in_key_value_lines():
    line = written(Event.TURN, rules={"spill": 2, "return": 1})
    assert 'rules="spill: 2, return: 1"' in line
    assert 'nodes="a@h; b@h"' in written(Event.AGENTLESS, nodes=["a@h", "b@h"])


@pytest.mark.parametrize("as_json", [True, False])
def test_hostile_values_stay_on_one_line_without_passwords(as_json):
    line = written(Event.TURN_FAILED, json=as_json, error="x\n\x1b[2Jy redis://:hunter2@h/0", where="f in x.py:1")
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "hunter2" not in line


def test_quiet_keeps_only_warnings_and_debug_adds_debug_events():
    assert written(Event.JOINED, quiet=True, worker="w") == ""
    assert written(Event.GONE, quiet=True, worker="w") != ""
    assert written(Event.LEARNED, runs=1, estimates=1) == ""
    assert written(Event.LEARNED, debug=True, runs=1, estimates=1) != ""
