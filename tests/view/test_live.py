"""The live screen: what `render` draws for a frame, a size and a state."""

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from morag_queue.core.model import WorkerStatus
from morag_queue.operations.live_stats import LiveFrame, RunningTask
from morag_queue.view.live import render
from morag_queue.view.live_state import LiveState, Sort
from morag_queue.view.live_tables import spark
from tests.view.live_frames import NOON, fleet, worker

START = LiveState()
HOSTILE = "\x1b[2J[bold red]x[/bold] \u202etxt\n日本"


@pytest.fixture(autouse=True)
def utc(set_zone):
    set_zone("UTC")


def drawn(frame: LiveFrame, width: int, height: int, state: LiveState = START) -> list[str]:
    """Draw a frame and check that it fills the terminal exactly; return the lines without trailing blanks."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(render(frame, width, height, state), end="")
    lines = console.file.getvalue().split("\n")
    assert [cell_len(line) for line in lines] == [width] * height
    return [line.rstrip() for line in lines]


def test_80_by_24_stacks_alerts_workers_and_journal():
    assert drawn(fleet(), 80, 24) == [
        "morag-queue mq@redis.example:6379/0  14:13:20  leader: watch@node-1",
        "QUEUE        PENDING U  H    N   L   B RUN IN/M OUT/M  OLDEST BACKLOG LAST HOUR",
        "gpu_priority     118 3 41   74   0   0   3  4.2   3.7 12m 30s     19m ▇█▆▂▂▆█▇▃▂",
        "gpu_fallback    1.7k 0  0 1.5k 230   0   3  8.4   7.4  1h 35m      4h ▇█▇▄▂▃▆██▅",
        "cpu_standard       0 0  0    0   0   0   3 12.6  11.1       –       – ▇██▆▄▃▃▆██",
        "‖ cpu_batch      12k 0  0    0   0 12k   3 16.8  14.8     10h      2d ▇██▇▅▃▃▄▆█",
        "",
        "✖ worker-hybrid-3 is gone and still holds 2 tasks",
        "▲ a LOW task has waited 2 h in gpu_fallback; 2 h is the limit",
        "",
        "WORKER          KIND   STATUS   LOAD       BEAT    AGE TASK",
        "worker-cpu-1    cpu    busy     ░░░░░░ 0/2 0.0s",
        "worker-cpu-4    cpu    busy     ██████ 3/2 0.9s 1m 40s https://example.org/talk…",
        "worker-cpu-7    cpu    busy     ███░░░ 1/2 1.8s    57s lecture-07.mp4",
        "worker-gpu-2    gpu    cordoned ███░░░ 1/2 0.3s 3m 20s by ann@ops: new disks",
        "worker-gpu-5    gpu    draining ██████ 4/2 1.2s 1m 20s by ann@ops: kernel update",
        "worker-gpu-8    gpu    busy     ██████ 2/2 0.0s    50s interview.wav +1",
        "worker-hybrid-3 hybrid offline  ██████ 2/2   4m 2m 13s no beat for 4 min",
        "worker-hybrid-6 hybrid busy     ░░░░░░ 0/2 1.5s",
        "",
        "JOURNAL",
        "14:12:40 rebalance gpu_fallback: idle workers while work waits · 12 moved (watc…",
        "14:11:45 drain worker-hybrid-5: kernel update · 3 moved (ann@ops)",
        "q quit  p pause  s sort: name  / filter  ? help",
    ]


def test_200_by_60_shows_alerts_and_journal_beside_the_workers():
    lines = drawn(fleet(100), 200, 60)
    assert lines[2].startswith(
        "QUEUE        PENDING URGENT HIGH NORMAL LOW BATCH RUNNING IN/M OUT/M  OLDEST BACKLOG WORKERS WAIT"
    )
    assert lines[2].endswith("LAST HOUR")
    assert len(lines[4].rpartition("12 ")[2]) == 60, "a bar a minute"
    assert lines[8].split() == [
        *("WORKER", "KIND", "STATUS", "LOAD", "BEAT", "CPU", "MEM", "GPU", "DONE", "FAILED", "AGE", "TASK", "REASON"),
        *("│", "ALERTS"),
    ]  # fmt: skip
    assert lines[9].endswith("│ ✖ worker-hybrid-3 is gone and still holds 2 tasks")
    assert lines[10].split()[:7] == ["worker-cpu-4", "cpu", "busy", "██████", "3/2", "0.9s", "11%"]
    assert "│ 14:12:40 rebalance gpu_fallback: idle workers while work waits · " in lines[13]
    assert lines[-2].startswith("… workers 1 to 49 of 100")


def test_50_by_15_keeps_the_most_important_columns():
    assert drawn(fleet(), 50, 15) == [
        "morag-queue mq@redis.example:6379/0  14:13:20",
        "QUEUE        PENDING RUN  OLDEST BACKLOG LAST HOUR",
        "gpu_priority     118   3 12m 30s     19m ▄█▆▂▃▇█▄▂",
        "gpu_fallback    1.7k   3  1h 35m      4h ▄██▄▂▄██▆",
        "cpu_standard       0   3       –       – ▄██▆▃▃▅██",
        "‖ cpu_batch      12k   3     10h      2d ▄██▇▅▃▃▅█",
        "",
        "✖ worker-hybrid-3 is gone and still holds 2 tasks",
        "▲ a LOW task has waited 2 h in gpu_fallback; 2 h …",
        "",
        "WORKER       STATUS LOAD       BEAT TASK",
        "worker-cpu-1 busy   ░░░░░░ 0/2 0.0s",
        "worker-cpu-4 busy   ██████ 3/2 0.9s https://examp…",
        "… workers 1 to 2 of 8",
        "q quit  p pause  s sort: name  / filter  ? help",
    ]


@pytest.mark.parametrize("width", [1, 20, 40, 79, 110, 149, 150, 333])
@pytest.mark.parametrize("height", [1, 3, 7, 12, 30, 100])
@pytest.mark.parametrize("workers", [8, 50])
def test_render_fills_every_size_exactly(width, height, workers):
    for state in (LiveState(), LiveState(help=True), LiveState(error="gone" * 99), LiveState(offset=500)):
        drawn(fleet(workers), width, height, state)


def test_an_empty_fleet_shows_a_hint_and_no_alerts():
    frame = replace(fleet(), stats=fleet().stats.model_copy(update={"workers": ()}), alerts=(), journal=(), history={})
    lines = drawn(frame, 80, 24)
    assert "No workers are registered." in lines
    assert "ALERTS" not in " ".join(lines)
    assert "none" in " ".join(drawn(frame, 200, 40))


def test_an_unreachable_broker_is_shown_with_the_age_of_the_frame():
    lines = drawn(fleet(), 80, 24, LiveState(error="cannot reach the broker x", age_s=75))
    assert lines[0] == " ✖ cannot reach the broker x; showing data that is 1m 15s old"
    assert lines[2].startswith("gpu_priority")


def test_pausing_shows_the_age_of_the_frame():
    assert "PAUSED 5s ago" in drawn(fleet(), 100, 24, LiveState(paused=True, age_s=5))[0]


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        (Sort.NAME, "worker-cpu-1"), (Sort.STATUS, "worker-hybrid-3"), (Sort.LOAD, "worker-gpu-5"),
        (Sort.AGE, "worker-gpu-2"), (Sort.BEAT, "worker-hybrid-3"),
    ],
)  # fmt: skip
def test_workers_are_sorted_by_the_chosen_column(sort, first):
    assert drawn(fleet(), 80, 24, LiveState(sort=sort))[11].split()[0] == first


def test_worker_10_is_sorted_after_worker_9():
    names = [line.split()[0] for line in drawn(fleet(100), 80, 60) if line.startswith("worker-cpu")]
    assert names[:4] == ["worker-cpu-1", "worker-cpu-4", "worker-cpu-7", "worker-cpu-10"]


@pytest.mark.parametrize(
    ("needle", "matches"), [("GPU-5", 1), ("offline", 1), ("node-3", 1), ("scan-0113", 2), ("nope", 0)]
)
def test_the_filter_matches_ids_hosts_states_and_tasks(needle, matches):
    lines = drawn(fleet(), 80, 24, LiveState(filter=needle))
    assert sum(line.startswith("worker-") for line in lines) == matches
    assert f"filter: {needle}" in lines[-1]


def test_scrolling_stops_at_the_last_worker():
    lines = drawn(fleet(100), 80, 24, LiveState(offset=10_000))
    assert any(line.startswith("worker-hybrid-99") for line in lines)
    assert "… workers 92 to 100 of 100" in lines or any(line.endswith("to 100 of 100") for line in lines)


def test_more_alerts_than_fit_are_counted():
    frame = fleet()
    lines = drawn(replace(frame, alerts=frame.alerts * 10), 80, 24)
    assert "… and 17 more alerts; `morag-queue doctor` lists them all" in lines


def test_hostile_text_is_escaped():
    stats = fleet().stats.model_copy(
        update={
            "workers": (worker(0, WorkerStatus.CORDONED, HOSTILE, worker=HOSTILE), worker(1, worker="x" * 10_000)),
            "leader": fleet().stats.leader.model_copy(update={"who": HOSTILE}),
        }
    )
    entry = fleet().journal[0].model_copy(update={"subject": HOSTILE, "reason": HOSTILE, "who": HOSTILE})
    running = {HOSTILE: (RunningTask("1", HOSTILE, 1.0),)}
    frame = replace(fleet(), stats=stats, running=running, journal=(entry,), fleet=HOSTILE)
    for width in (80, 200):
        text = "\n".join(drawn(frame, width, 40, LiveState(filter="")))
        assert r"\x1b[2J[bold red]x" in text
        assert not {"\x1b", "\u202e"} & set(text)


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ((0, 1, 7, 3), 4, " ▂█▄"), ((1, 1, 1, 5), 2, "▄█"), ((5, 1, 1), 2, "█▄"), ((), 5, ""), ((0, 0), 2, ""),
        ((1, 2), 0, ""),
    ],
)  # fmt: skip
def test_a_sparkline_scales_to_its_highest_bar(values, width, expected):
    assert spark(values, width) == expected


def test_the_clock_is_the_servers_in_the_users_zone(set_zone):
    set_zone("Asia/Tokyo")
    lines = drawn(fleet(), 80, 24)
    assert " 23:13:20  leader" in lines[0]
    assert lines[21].startswith("23:12:40 rebalance")
    assert fleet().stats.taken_at == NOON


TASK_ID = "027b6dfe-1111-4222-8333-444455556666"


def test_a_journal_line_separates_subject_and_reason_and_shortens_ids():
    entry = fleet().journal[0].model_copy(update={"verb": "task prio", "subject": TASK_ID, "reason": "due today"})
    lines = drawn(replace(fleet(), journal=(entry,)), 80, 24)
    assert "14:12:40 task prio 027b6dfe: due today · 12 moved (watch@node-1)" in lines


def test_the_task_of_a_worker_without_a_known_source_is_a_short_id():
    running = {"worker-cpu-1": (RunningTask(TASK_ID, TASK_ID, 1.0),)}
    lines = drawn(replace(fleet(), running=running), 80, 24)
    assert next(line for line in lines if line.startswith("worker-cpu-1")).endswith(" 027b6dfe")


def test_a_late_heartbeat_is_an_alert_before_the_worker_is_suspect():
    late = [
        worker(0, WorkerStatus.ONLINE, last_heartbeat_seconds=7.2),
        worker(1, WorkerStatus.BUSY, last_heartbeat_seconds=4.9),
        worker(2, WorkerStatus.SUSPECT, "no heartbeat for 11 s", last_heartbeat_seconds=11.0),
    ]
    stats = fleet().stats.model_copy(update={"workers": tuple(late)})
    lines = drawn(replace(fleet(), stats=stats, alerts=()), 80, 24)
    assert [line for line in lines if line.startswith(("•", "▲", "✖"))] == [
        "• worker-cpu-1: last heartbeat 7.2s ago, although still online"
    ]
