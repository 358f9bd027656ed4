"""The table of events, and how its lines look."""

import io
import json

import pytest

from morag_queue.watch.events import EVENTS, Event
from morag_queue.watch.log import Log


def written(event: Event, *, json: bool = False, quiet: bool = False, debug: bool = False, **fields: object) -> str:
    stream = io.StringIO()
    Log(stream, json=json, quiet=quiet, debug=debug)(event, **fields)
    return stream.getvalue()


def test_every_event_has_its_row_and_says_what_it_means():
    assert set(EVENTS) == set(Event)
    assert all(kind.says for kind in EVENTS.values())


@pytest.mark.parametrize("event", Event)
def test_names_are_snake_case_and_durations_carry_their_unit(event):
    assert event.value == event.value.lower().replace("-", "_")
    assert len(set(EVENTS[event].fields)) == len(EVENTS[event].fields)
    assert not {"time", "duration", "wait", "age"} & set(EVENTS[event].fields)


def test_a_person_reads_key_equals_value():
    line = written(Event.JOINED, worker="worker-cpu-1")
    assert line.endswith("Z level=info event=worker_joined worker=worker-cpu-1\n")
    assert line.startswith("at=")


def test_a_script_reads_one_json_object_a_line():
    line = written(Event.TURN, json=True, moved=3, rules={"spill": 3}, seconds=0.0123456)
    told = json.loads(line)
    assert line.count("\n") == 1
    assert told.pop("at").endswith("Z")
    assert told == {"event": "turn", "level": "info", "moved": 3, "rules": {"spill": 3}, "seconds": 0.0123}


def test_lists_and_tables_are_flat_for_a_person():
    line = written(Event.TURN, rules={"spill": 2, "return": 1})
    assert 'rules="spill: 2, return: 1"' in line
    assert 'nodes="a@h; b@h"' in written(Event.AGENTLESS, nodes=["a@h", "b@h"])


@pytest.mark.parametrize("as_json", [True, False])
def test_what_others_wrote_is_harmless_and_stays_on_its_line(as_json):
    line = written(Event.TURN_FAILED, json=as_json, error="x\n\x1b[2Jy redis://:hunter2@h/0", where="f in x.py:1")
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "hunter2" not in line


def test_quiet_keeps_warnings_and_debug_adds_details():
    assert written(Event.JOINED, quiet=True, worker="w") == ""
    assert written(Event.GONE, quiet=True, worker="w") != ""
    assert written(Event.LEARNED, runs=1, estimates=1) == ""
    assert written(Event.LEARNED, debug=True, runs=1, estimates=1) != ""
