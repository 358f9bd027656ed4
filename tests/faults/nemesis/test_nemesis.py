"""A short run of the nemesis, and its judgement on histories that are made up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .__main__ import main, run
from .history import History
from .schedule import COMMANDS, FAULTS, LOAD, schedule
from .verdict import judge, second_starts, unexpected_tracebacks

WORKER, OTHER = "worker-cpu-1@vm", "worker-cpu-2@vm"


@pytest.mark.slow
def test_a_short_run_loses_nothing_and_explains_each_second_start() -> None:
    verdict = run(seed=1, seconds=30)

    assert verdict.is_kept, str(verdict)
    assert verdict.counts["acknowledged"] > 50


def test_a_seed_gives_the_same_schedule_and_another_seed_another_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schedule", "--seed", "7", "--seconds", "60"]) == 0
    printed = capsys.readouterr().out

    assert printed.splitlines() == [str(step) for step in schedule(7, 60)]
    assert schedule(7, 60) != schedule(8, 60)


def test_a_minute_has_each_kind_of_fault_load_and_command() -> None:
    found = {step.what for step in schedule(1, 60)}

    assert {*FAULTS, *LOAD} <= found
    assert len(found) > len(FAULTS) + len(LOAD) + len(COMMANDS)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    kept = History(tmp_path / "history.jsonl")
    yield kept
    kept.close()


def event(name: str, task: str, at: float, worker: str = WORKER, pid: int = 1) -> dict[str, object]:
    return {"event": name, "task": task, "at": at, "worker": worker, "pid": pid, "retries": 0}


def verdict_of(history: History, events: list[dict[str, object]], **more: object) -> str:
    facts = {"states": {}, "dead": {}, "stuck": (), "remains": {}, "tracebacks": (), **more}
    return str(judge(history, events, **facts))  # type: ignore[arg-type]


def test_a_second_start_is_explained_by_a_fault_that_hit_the_first_and_by_no_other(history: History) -> None:
    twice = [
        event("start", "a", 10),
        event("end", "a", 11),
        event("start", "a", 20, OTHER),
        event("end", "a", 21, OTHER),
    ]
    for worker, at in (("worker-cpu-3", 10.5), ("worker-cpu-1", 5.0), ("worker-cpu-1", 15.0)):
        hit = history.hit("worker killed", worker)
        hit.began = hit.ended = at
        assert second_starts(history, twice)[1] == ["a (attempt 0)"]

    hit = history.hit("worker stopped", "worker-cpu-1")
    hit.began = hit.ended = 10.5
    assert second_starts(history, twice) == ({"worker stopped": 1}, [])


def test_a_worker_that_lost_its_message_to_another_and_ran_it_all_the_same_is_named(history: History) -> None:
    hit = history.hit("connections closed", "worker-cpu-2")
    hit.began = hit.ended = 9.9
    twice = [event("start", "a", 10), event("start", "a", 10.1, OTHER)]
    assert second_starts(history, twice) == ({"taken over, ran all the same: connections closed": 1}, [])


def test_a_killed_process_of_a_pool_explains_only_its_own_task(history: History) -> None:
    hit = history.hit("pool process killed", "worker-cpu-1", pid=2)
    hit.began = hit.ended = 10.5
    own = [event("start", "a", 10, pid=2), event("start", "a", 11, pid=3)]
    beside = [event("start", "b", 10, pid=3), event("start", "b", 11, pid=4)]
    assert second_starts(history, own + beside) == ({"pool process killed": 1}, ["b (attempt 0)"])


def test_the_account_names_what_is_lost_left_over_and_unexpected(history: History) -> None:
    with history.sending("lost-1"), history.sending("ran-1"):
        pass
    said = verdict_of(history, [event("end", "ran-1", 1), event("end", "alien-1", 1)], remains={"messages": ["m"]})
    assert "acknowledged 2  executed 2  cancelled 0  lost 1" in said
    assert "BROKEN: lost 1: lost-1" in said
    assert "BROKEN: unexpected 1: alien-1" in said
    assert "BROKEN: left over, messages 1: m" in said


def test_a_cancelled_task_is_not_lost_nor_what_it_would_have_sent(history: History) -> None:
    history.parents["child"] = ("parent",)
    with history.sending("parent"):
        pass
    history.targets.add("parent")
    assert "lost 2" in verdict_of(history, [], states={"parent": "queued"})
    assert "cancelled 2  lost 0" in verdict_of(history, [], states={"parent": "cancelled"})


def test_only_tasks_that_fail_on_purpose_may_have_dead_letters(history: History) -> None:
    said = verdict_of(history, [], dead={"fail-1": "{}", "nap-1": "{}"})
    assert "BROKEN: dead letters of good tasks 1: nap-1" in said


def test_tracebacks_of_tasks_that_fail_on_purpose_are_expected(tmp_path: Path) -> None:
    text = "Traceback (most recent call last):\n  File x\n{error}: on purpose\nmore\n"
    (tmp_path / "worker-1.log").write_text(text.format(error="ValueError") + text.format(error="KeyError"))
    (tmp_path / "watch-1.log").write_text(text.format(error="ValueError"))
    assert unexpected_tracebacks(tmp_path) == [
        "watch-1.log: ValueError: on purpose",
        "worker-1.log: KeyError: on purpose",
    ]


def test_of_a_chain_of_tracebacks_the_last_counts(tmp_path: Path) -> None:
    text = "Traceback (most recent call last):\n  File x\n{error}\n\n"
    during = "During handling of the above exception, another exception occurred:\n\n"
    good = text.format(error="FencedError") + during + text.format(error="ValueError: on purpose")
    bad = text.format(error="ValueError: on purpose") + during + text.format(error="KeyError")
    (tmp_path / "worker-1.log").write_text(good + "[2026] next\n" + bad)
    assert unexpected_tracebacks(tmp_path) == ["worker-1.log: KeyError"]
