"""A submission: all tasks of one `submit`, by its id."""

import json

import pytest

from tests.cli.helpers import pending_tasks


@pytest.fixture
def submit(fleet, here):
    """Submit that many web pages; return the answer."""

    def run(count, *args, name="t"):
        rows = [
            {"source": f"https://example.org/{name}-{n}", "content_type": "web", "task_id": f"{name}-{n}"}
            for n in range(count)
        ]
        return fleet(
            "submit", "--from", "-", "--json", *args, stdin="".join(json.dumps(row) + "\n" for row in rows)
        ).json

    return run


def listed(fleet, *args):
    return [task["task_id"] for task in fleet("tasks", "--json", *args).json["tasks"]]


def entry_of_submit(sim_fleet):
    return next(entry.entry_id for entry in sim_fleet.broker.journal.latest(10) if entry.verb == "submit")


def test_submit_names_the_submission_and_tasks_lists_it(sim_fleet, fleet, submit):
    first, second = submit(3)["submission_id"], submit(2, name="u")["submission_id"]
    assert len(first) == 10
    assert first != second
    assert listed(fleet, "--submission", first) == ["t-0", "t-1", "t-2"]
    assert listed(fleet, "--submission", second, "--newest") == ["u-1", "u-0"]
    (task, _) = fleet("tasks", "--submission", second, "--json").json["tasks"]
    assert task["submission"] == second
    assert f"submission {second}\n" in fleet("task", "show", "u-0").out
    assert listed(fleet, "--submission", first, "--queue", "cpu_batch") == []
    assert fleet("tasks", "--submission", "no-such-id").out == "No task matches.\n"


def test_submit_prints_the_submission_below_the_table(fleet, here):
    summary = fleet("submit", "report.txt").out.splitlines()[-1]
    text, _, submission = summary.rpartition(" ")
    assert text == "1 submitted; submission"
    assert len(listed(fleet, "--submission", submission)) == 1


def test_a_submission_is_found_in_every_state(sim_fleet, fleet, submit):
    sim_fleet.join("cpu-1")
    submission = submit(4)["submission_id"]
    sim_fleet.submit("other")
    for outcome in ("completed", "failed"):
        sim_fleet.end(sim_fleet.claim("cpu-1"), outcome)
    sim_fleet.claim("cpu-1")
    fleet("task", "cancel", "t-3")
    found = {
        state: listed(fleet, "--submission", submission, "--state", state)
        for state in ("completed", "failed", "running", "cancelled", "queued")
    }
    assert found == {
        "completed": ["t-0"], "failed": ["t-1"], "running": ["t-2"], "cancelled": ["t-3"], "queued": [],
    }  # fmt: skip
    assert listed(fleet, "--submission", submission) == ["t-2"]


def test_the_tasks_of_a_submission_are_moved_prioritised_and_cancelled_together(sim_fleet, fleet, submit):
    submission = submit(3)["submission_id"]
    sim_fleet.submit("other")
    assert fleet("task", "prio", "HIGH", "--submission", submission, "--yes", "--json").json["changed"] == 3
    assert (
        fleet("task", "move", "--submission", submission, "--to-queue", "cpu_batch", "--yes", "--json").json["changed"]
        == 3
    )
    assert fleet("task", "cancel", "--submission", submission, "--dry-run").out.endswith("3 would be changed\n")
    assert pending_tasks(fleet) == 4
    assert fleet("task", "cancel", "--submission", submission, "--yes", "--json").json["changed"] == 3
    assert listed(fleet) == ["other"]


def test_cancel_by_submission_says_that_held_tasks_were_not_selected(sim_fleet, fleet, submit):
    sim_fleet.join("cpu-1")
    submission = submit(2)["submission_id"]
    sim_fleet.claim("cpu-1")
    result = fleet("task", "cancel", "--submission", submission, "--yes")
    assert result.err == f"1 task of {submission} held by workers, so not selected; add --state running to select\n"
    assert "1 changed" in result.out


def test_a_submission_is_found_among_many_other_tasks(sim_fleet, fleet, submit):
    sim_fleet.fill([f"before-{n}" for n in range(1500)])
    submission = submit(2)["submission_id"]
    sim_fleet.fill([f"after-{n}" for n in range(1500)])
    page = fleet("tasks", "--submission", submission, "--json").json
    assert [(task["task_id"], task["position"]) for task in page["tasks"]] == [("t-0", 1501), ("t-1", 1502)]


def test_text_that_looks_like_a_submission_does_not_make_a_task_part_of_it(sim_fleet, fleet, submit):
    submission = submit(1)["submission_id"]
    sim_fleet.submit("liar", args=[submission], kwargs={"submission": submission})
    sim_fleet.send("foreign", headers={"submission": submission, "other": [submission]})
    assert listed(fleet, "--submission", submission) == ["t-0"]


def test_a_task_keeps_its_submission_when_it_is_queued_again(sim_fleet, fleet, submit):
    sim_fleet.join("cpu-1")
    submission = submit(3)["submission_id"]
    sim_fleet.end(sim_fleet.claim("cpu-1"), "completed")
    sim_fleet.end(sim_fleet.claim("cpu-1"), "failed", "E")
    fleet("task", "cancel", "t-2")
    fleet("task", "retry", "t-0", "t-1", "t-2")
    assert sorted(listed(fleet, "--submission", submission)) == ["t-0", "t-1", "t-2"]


def test_undo_of_a_submit_cancels_what_still_waits_and_counts_the_rest(sim_fleet, fleet, submit):
    sim_fleet.join("cpu-1")
    submission = submit(6, "--reason", "test")["submission_id"]
    sim_fleet.submit("other")
    sim_fleet.end(sim_fleet.claim("cpu-1"))
    sim_fleet.end(sim_fleet.claim("cpu-1"), "failed", "E")
    sim_fleet.claim("cpu-1")
    entry = entry_of_submit(sim_fleet)
    stays = (
        "not undone: 1 task: held by workers already; to revoke: morag-queue task cancel --submission "
        f"{submission} --state running\nnot undone: 2 tasks: ended already\n"
    )
    dry = fleet("journal", "undo", entry, "--dry-run", status=3)
    assert (dry.out, dry.err) == ("submit: 3 would be undone\n", stays)
    assert pending_tasks(fleet) == 4
    undone = fleet("journal", "undo", entry, status=3)
    again = sim_fleet.broker.journal.latest(1)[0].entry_id
    out = f"submit: 3 undone; undo: morag-queue journal undo {again}\n"
    assert (undone.out, undone.err) == (out, stays)
    assert listed(fleet) == ["t-2", "other"]
    repeated = fleet("journal", "undo", entry)
    assert (repeated.out, repeated.err) == ("submit: 0 undone, 3 already undone\n", "")
    (task, *_) = fleet("tasks", "--state", "cancelled", "--json").json["tasks"]
    assert task["error"] == f"undo of {entry}"


def test_undo_of_a_submit_that_still_waits_is_complete_and_can_be_repeated(sim_fleet, fleet, submit):
    submit(30)
    entry = entry_of_submit(sim_fleet)
    answer = fleet("journal", "undo", entry, "--json").json
    assert (answer["verb"], answer["undone"], answer["not_undone"]) == ("submit", 30, [])
    assert pending_tasks(fleet) == 0
    assert fleet("journal", "undo", entry).out == "submit: 0 undone, 30 already undone\n"


def test_a_submit_without_a_named_submission_cannot_be_undone(sim_fleet, fleet):
    entry = sim_fleet.broker.journal.write("ann", "submit", "a.txt", changes={"submitted": 1})
    refused = fleet("journal", "undo", entry, status=5).err
    assert "submit of a.txt cannot be undone: the journal does not record the state before it" in refused


def test_a_submit_that_breaks_says_how_to_take_it_back(sim_fleet, fleet, here, submit):
    sim_fleet.client.set("mq:current", "of another type")
    result = fleet("submit", "report.txt", "--json", status=1)
    submission = result.json["submission_id"]
    assert f"To take all back: morag-queue task cancel --submission {submission}\n" in result.err


def test_undo_of_a_large_submit_works_in_parts(sim_fleet, fleet, submit, monkeypatch):
    monkeypatch.setattr("morag_queue.operations.task_editor.PART", 7)
    submit(40, "--priority", "HIGH", name="high")
    sim_fleet.submit("other", priority="HIGH")
    assert fleet("journal", "undo", entry_of_submit(sim_fleet)).out.startswith("submit: 40 undone; undo: ")
    assert listed(fleet) == ["other"]
    assert sim_fleet.broker.journal.latest(1)[0].changes["count"] == 40
