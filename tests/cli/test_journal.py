"""`journal ls|show|undo`."""

from datetime import datetime, timedelta

from morag_queue.broker.contract import JournalNote
from morag_queue.broker.journal import BEGUN, encoded
from morag_queue.core.plan import MoveTask
from tests.cli.helpers import backdate_tasks


def last_entry_id(sim_fleet):
    return sim_fleet.broker.journal.latest(1)[0].entry_id


def test_undoing_a_cancel_resends_the_tasks(sim_fleet, fleet):
    sim_fleet.submit("a", "b")
    fleet("task", "cancel", "a", "b")
    entry = last_entry_id(sim_fleet)
    out = fleet("journal", "undo", entry).out
    assert out == f"task cancel: 2 undone; undo: morag-queue journal undo {last_entry_id(sim_fleet)}\n"
    assert sim_fleet.ids("cpu_standard", 4) == ["a", "b"]
    assert fleet("journal", "undo", entry, "--json").json["unchanged"] == 2
    assert fleet("journal", "undo", entry).out == "task cancel: 0 undone, 2 already undone\n"
    assert sim_fleet.broker.journal.latest(1)[0].reason == f"undo of {entry}"


def test_undoing_a_cancel_skips_a_task_that_ran_since(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a")
    fleet("task", "cancel", "a")
    entry = last_entry_id(sim_fleet)
    fleet("task", "retry", "a")
    sim_fleet.claim("cpu-1")
    sim_fleet.end("a")
    assert "was queued again since, and has ended (completed)" in fleet("journal", "undo", entry, status=5).err


def test_undoing_prio_and_move_restores_tasks_that_still_wait(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", "b", "c")
    before = {task_id: sim_fleet.broker.records([task_id])[task_id] for task_id in ("a", "b", "c")}
    fleet("task", "prio", "a", "b", "c", "URGENT")
    entry = last_entry_id(sim_fleet)
    assert sim_fleet.claim("cpu-1") == "a"
    fleet("task", "prio", "b", "HIGH")
    result = fleet("journal", "undo", entry, "--json", status=3)
    assert {failure["subject"]: failure["reason"] for failure in result.json["not_undone"]} == {
        "a": "it no longer waits",
        "b": "it has been changed again since",
    }
    assert sim_fleet.ids("cpu_standard", 4) == ["c"]
    assert sim_fleet.broker.records(["c"])["c"].fields == before["c"].fields
    fleet("task", "move", "c", "--to-worker", "cpu-1")
    fleet("journal", "undo", last_entry_id(sim_fleet))
    assert sim_fleet.ids("cpu_standard", 4) == ["c"]
    assert "worker" not in sim_fleet.message("cpu_standard", 4)["headers"]["morag_queue"]


def test_undoing_a_pause_or_a_cordon_lifts_it(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    fleet("pause", "cpu_batch")
    fleet("journal", "undo", last_entry_id(sim_fleet))
    assert sim_fleet.broker.observe()[0].paused == frozenset()
    fleet("cordon", "cpu-1")
    fleet("journal", "undo", last_entry_id(sim_fleet))
    assert sim_fleet.broker.observe()[0].workers[0].cordon is None


def test_undo_refuses_a_change_that_cannot_be_undone(sim_fleet, fleet):
    shut_down = sim_fleet.broker.journal.write("ann", "shutdown", "cpu-1", changes={"node": "cpu-1@host"})
    assert "shutdown of cpu-1 cannot be undone" in fleet("journal", "undo", shut_down, status=5).err
    swept = sim_fleet.broker.journal.write("watch", "watch", "the fleet", changes={"moved": 1, "tasks": ["a"]})
    assert "the journal does not record the state before it" in fleet("journal", "undo", swept, status=5).err
    assert "no journal entry '17'" in fleet("journal", "undo", "17-99", status=8).err.replace("17-99", "17")


def test_undoing_a_requeue_returns_a_waiting_task_to_dead(sim_fleet, fleet, fail):
    fail("f-1")
    before = fleet("dead", "show", "f-1", "--json").json
    fleet("dead", "requeue", "f-1")
    fleet("journal", "undo", last_entry_id(sim_fleet))
    after = fleet("dead", "show", "f-1", "--json").json
    assert {**after, "decisions": 0, "now_at": 0} == {**before, "decisions": 0, "now_at": 0}
    assert sim_fleet.ids("cpu_standard", 4) == []


def test_a_dry_run_of_undo_changes_nothing(sim_fleet, fleet):
    sim_fleet.submit("a")
    fleet("task", "cancel", "a")
    assert fleet("journal", "undo", last_entry_id(sim_fleet), "--dry-run").out == "task cancel: 1 would be undone\n"
    assert sim_fleet.ids("cpu_standard", 4) == []


def test_undoing_a_rebalance_moves_tasks_back_but_not_whole_lanes(sim_fleet, fleet):
    sim_fleet.submit("a")
    backdate_tasks(sim_fleet, "a")
    sim_fleet.submit("b")
    move = MoveTask(
        task_id="a", source="cpu_standard", target="cpu_batch", level=4, to_level=1, reason="starving"
    )  # fmt: skip
    assert sim_fleet.broker.moves.tasks([move]) == ["moved"]
    changes = {
        "moved": 1,
        "tasks": {"a": ["cpu_standard", 4, "cpu_batch", 1, "starving"]},
        "lanes": [["cpu_batch.cpu-9", 3, "cpu_batch", 7, "its worker is dead"]],
    }
    entry = sim_fleet.broker.journal.write("watch", "rebalance", "fleet", changes=changes)
    assert fleet("task", "why", "a", "--json").json["decisions"][-1]["reason"] == "starving"
    result = fleet("journal", "undo", entry, status=3)
    assert "not undone: cpu_batch.cpu-9, level 3: the whole lane (7 tasks) was moved to cpu_batch" in result.err
    assert sim_fleet.ids("cpu_standard", 4) == ["a", "b"]


def test_journal_ls_filters_by_verb_and_escapes_reasons(sim_fleet, fleet):
    sim_fleet.broker.journal.write("ann", "cordon", "cpu-1", reason="\x1b[2J disk", changes={"state": "cordoned"})
    sim_fleet.broker.journal.write("ann", "rebalance", "fleet", changes={"moved": 3})
    assert [entry["verb"] for entry in fleet("journal", "ls", "--verb", "cordon", "--json").json["entries"]] == [
        "cordon"
    ]
    out = fleet("journal", "ls").out
    assert "3 moved" in out
    assert "\\x1b[2J disk" in out


def test_journal_shows_times_in_the_users_zone_and_prints_utc_as_json(sim_fleet, fleet, set_zone):
    set_zone("Asia/Tokyo")
    entry = sim_fleet.broker.journal.write("ann", "cordon", "cpu-1", changes={"state": "cordoned"})
    at = fleet("journal", "show", entry, "--json").json["at"]
    tokyo = datetime.fromisoformat(at) + timedelta(hours=9)
    assert at.endswith("Z")
    shown = f"{tokyo:%H:%M:%S}"
    assert fleet("journal", "ls").out.splitlines()[1].split()[1:3] in ([shown, "cordon"], [f"{tokyo:%Y-%m-%d}", shown])
    assert f"when     {shown}" in fleet("journal", "show", entry).out


def test_an_empty_journal_is_told_from_a_filter_without_a_match(sim_fleet, fleet):
    assert fleet("journal", "ls").out == "The journal is empty: nothing has changed the fleet yet.\n"
    assert fleet("journal", "ls", "--json").json == {"entries": []}
    sim_fleet.broker.journal.write("ann", "cordon", "cpu-1", changes={"state": "cordoned"})
    assert fleet("journal", "ls", "--verb", "drain").out == "No journal entry of the verb 'drain'.\n"


def test_the_count_of_changed_tasks_has_its_noun(sim_fleet, fleet):
    sim_fleet.broker.journal.write("ann", "task prio", "2 tasks", changes={"count": 2})
    assert fleet("journal", "ls").out.splitlines()[1].split()[2:8] == ["task", "prio", "2", "tasks", "2", "tasks"]


def test_an_entry_can_be_undone_as_it_is_listed_at_80_columns(sim_fleet, fleet):
    entry = sim_fleet.broker.journal.write(
        "operator@a-host", "task move", "027b6dfe-1111-4222-8333-444455556666", reason="make room for a release",
        changes={"moved": 12_000},
    )  # fmt: skip
    heading, row, *_ = fleet("journal", "ls", env={"COLUMNS": "80"}).out.splitlines()
    assert heading.split() == ["ENTRY", "WHEN", "VERB", "SUBJECT", "CHANGES", "REASON"]
    assert row.startswith(f"{entry}  ")
    assert "make room" in row


def test_an_unfinished_change_is_listed_shown_task_by_task_and_undone(sim_fleet, fleet):
    """Its command was killed before it wrote the result."""
    sim_fleet.submit("a", "b")
    fleet("task", "cancel", "a", "b")
    finished = sim_fleet.broker.journal.latest(1)[0]
    sim_fleet.client.delete(sim_fleet.keys.journal)
    note = JournalNote("ann", "task cancel", "2 tasks", plan_id=finished.plan_id)
    entry = sim_fleet.broker.journal.begin(note)
    assert fleet("journal", "ls").out.splitlines()[1].split()[2:7] == ["task", "cancel", "2", "tasks", "begun"]
    shown = fleet("journal", "show", entry)
    assert shown.err == (
        "This change has not ended, or its command was killed: 2 tasks were changed so far; "
        f"undo: morag-queue journal undo {entry}\n"
    )
    assert shown.out.count("cancelled") == 4
    assert fleet("journal", "show", entry, "--json").json["changes"]["count"] == 2
    assert fleet("journal", "undo", entry).out.startswith("task cancel: 2 undone; ")
    assert sim_fleet.ids("cpu_standard", 4) == ["a", "b"]


def test_an_entry_is_found_by_the_id_that_it_had_when_its_change_began(sim_fleet, fleet):
    sim_fleet.submit("a")
    fleet("task", "cancel", "a")
    entry = sim_fleet.broker.journal.latest(1)[0]
    assert entry.changes["begun"] != entry.entry_id
    assert fleet("journal", "show", entry.changes["begun"], "--json").json["entry_id"] == entry.entry_id


def test_a_change_that_began_and_changed_nothing_has_nothing_to_undo(sim_fleet, fleet):
    entry = sim_fleet.broker.journal.begin(JournalNote("ann", "task cancel", "2 tasks"))
    assert fleet("journal", "undo", entry).out == "task cancel: 0 undone\n"


def test_a_begun_change_whose_record_has_expired_cannot_be_undone(sim_fleet, fleet):
    note = JournalNote("ann", "task cancel", "2 tasks", changes={"state": BEGUN})
    sim_fleet.client.xadd(sim_fleet.keys.journal, {"entry": encoded(note)}, id="1000-0")
    refused = fleet("journal", "undo", "1000-0", status=5).err
    assert refused == "error: task cancel of 2 tasks cannot be undone any more: its record has expired\n"


def test_a_second_undo_says_nothing_of_what_the_first_could_not_undo(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", "b")
    fleet("task", "prio", "a", "b", "URGENT")
    entry = last_entry_id(sim_fleet)
    assert sim_fleet.claim("cpu-1") == "a"
    first = fleet("journal", "undo", entry, status=3)
    assert first.err == "not undone: a: it no longer waits\n"
    again = fleet("journal", "undo", entry)
    assert (again.out, again.err) == ("task prio: 0 undone, 1 already undone\n", "")
    assert fleet("journal", "undo", entry, "--json").json["undone_before"]


def test_an_undo_of_many_tasks_names_the_first_that_it_cannot_undo(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    ids = [f"t-{n:02}" for n in range(25)]
    sim_fleet.submit(*ids)
    fleet("task", "prio", *ids, "URGENT")
    entry = last_entry_id(sim_fleet)
    for _ in ids[:22]:
        sim_fleet.claim("cpu-1")
    err = fleet("journal", "undo", entry, status=3).err.splitlines()
    assert len(err) == 21
    assert err[-1] == "… and 2 more; --json lists them all"
