"""Tables at narrow, usual and wide widths. Rows are never wrapped."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from morag_queue.core.model import (
    Capability,
    Classification,
    ContentType,
    DecisionAction,
    Lease,
    LoadBalancingDecision,
    QueuePriority,
    QueueType,
    Requires,
    ResourceRequirement,
    TaskComplexity,
    WorkerStatus,
)
from morag_queue.core.routing.feasibility import Feasibility, Score
from morag_queue.core.routing.types import Placement
from morag_queue.core.stats import FleetStats, QueueStats, WorkerStats
from morag_queue.operations.submit_report import SubmittedTask
from morag_queue.view.stats import stats_view
from morag_queue.view.submit import classify_view, submit_view
from tests.view.live_frames import NOON

HOSTILE = "\x1b[2J[bold red]x[bold] \u202etxt.md"


def drawn(renderable, width):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False, color_system=None)
    console.print(renderable)
    text = console.file.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    return "\n".join(line.rstrip() for line in text.splitlines())


def queue(kind, pending=0, **more):
    numbers = dict.fromkeys(("average_wait_time", "average_processing_time", "p95_wait_time"), 0.4)
    return QueueStats(
        queue_type=kind, total_tasks=pending, pending_tasks=pending, processing_tasks=1, completed_tasks=15_000,
        failed_tasks=2, worker_count=3, oldest_wait_time=80.5, backlog_time=12.0, **numbers, **more,
    )  # fmt: skip


def worker(name, status=WorkerStatus.ONLINE, reason=""):
    return WorkerStats(
        worker=name, capability=Capability.GPU, status=status, active_tasks=1, assigned_tasks=2,
        max_concurrent_tasks=4, completed_tasks=120, failed_tasks=1, last_heartbeat_seconds=1.2, reason=reason,
    )  # fmt: skip


FLEET = FleetStats(
    taken_at=1.0,
    window_seconds=3600,
    queues=(queue(QueueType.GPU_PRIORITY, 120, pending_by_priority={"URGENT": 3, "BATCH": 117}), queue("cpu_batch")),
    workers=(worker("worker-gpu-1"), worker("a-worker-of-a-very-long-name-1", WorkerStatus.DRAINED, "new disks")),
)


def test_stats_at_80_columns_drops_the_columns_of_highest_rank():
    assert drawn(stats_view(FLEET), 80) == (
        "QUEUE         PENDING  RUNNING  OLDEST  BACKLOG  WORKERS  WAIT   DONE  FAILED\n"
        "gpu_priority      120        1  1h 20m      12m        3   24s  15000       2\n"
        "cpu_batch           0        1  1h 20m      12m        3   24s  15000       2\n"
        "\n"
        "WORKER                      KIND  STATUS   ACTIVE  BEAT  DONE  FAILED  REASON\n"
        "worker-gpu-1                gpu   online      1/4  1.2s   120       1\n"
        "a-worker-of-a-very-long-n…  gpu   drained     1/4  1.2s   120       1  new disks\n"
        "\n"
        "Leader: none; no watch leads this fleet: run `morag-queue watch`"
    )


def test_stats_at_50_columns_keeps_the_most_important_columns():
    assert drawn(stats_view(FLEET), 50) == (
        "QUEUE         PENDING  RUNNING  WORKERS  FAILED\n"
        "gpu_priority      120        1        3       2\n"
        "cpu_batch           0        1        3       2\n"
        "\n"
        "WORKER                       STATUS   ACTIVE  BEAT\n"
        "worker-gpu-1                 online      1/4  1.2s\n"
        "a-worker-of-a-very-long-na…  drained     1/4  1.2s\n"
        "\n"
        "Leader: none; no watch leads this fleet: run\n"
        "`morag-queue watch`"
    )


def test_stats_says_who_leads_and_since_when(set_zone):
    set_zone("UTC")
    lease = Lease(holder="x", term=3, who="ann@ops", verb="watch", since=NOON - 90_000, until=NOON + 15)
    led = FLEET.model_copy(update={"leader": lease, "taken_at": NOON})
    last = drawn(stats_view(led), 80).splitlines()[-1]
    assert last == "Leader: ann@ops (watch) since 2026-09-20 13:13:20 (1d 1h), term 3"


def test_stats_on_a_wide_terminal_shows_every_column():
    text = drawn(stats_view(FLEET), 200)
    assert "URGENT:3 BATCH:117" in text
    assert "a-worker-of-a-very-long-name-1  gpu" in text
    assert "ASSIGNED" in text


@pytest.mark.parametrize("width", [20, 80, 200])
def test_stats_escapes_hostile_names_and_reasons_at_every_width(width):
    fleet = FLEET.model_copy(update={"workers": (worker("w\n\x1b[2J\u202e" * 50, reason=HOSTILE),)})
    text = drawn(stats_view(fleet), width)
    assert not {"\x1b", "\u202e"} & set(text)
    if width == 200:
        assert r"\x1b[2J[bold red]x[bold] \u202etxt.md" in drawn(
            stats_view(FLEET.model_copy(update={"workers": (worker("w", reason=HOSTILE),)})), width
        )


def test_stats_reports_missing_workers_and_counts_foreign_messages():
    fleet = FLEET.model_copy(update={"workers": (), "foreign_messages": 2})
    text = drawn(stats_view(fleet), 80)
    assert "No workers are registered." in text
    assert "2 foreign messages not written by Celery; left in place." in text


DECISION = LoadBalancingDecision(
    action=DecisionAction.ASSIGN, source_queue=QueueType.GPU_FALLBACK, target_queue=QueueType.GPU_FALLBACK,
    worker_id="worker-gpu-1", reason="worker-gpu-1 is expected to take it", confidence=0.8,
)  # fmt: skip


def test_classify_shows_needs_reasons_decision_and_scores():
    classification = Classification(
        source=HOSTILE, content_type=ContentType.AUDIO, requires=Requires.GPU_PREFERRED, priority=QueuePriority.NORMAL,
        complexity=TaskComplexity.MEDIUM, requirements=(ResourceRequirement.GPU_PREFERRED,), estimated_minutes=1.5,
        memory_gb=0.5, disk_gb=0.1, confidence=0.9, reasons=("audio: by its content",),
    )  # fmt: skip
    scores = (
        Score(worker="worker-gpu-1", verdict=Feasibility.FIT, score=0.83, expected_minutes=0.3),
        Score(worker="worker-cpu-1", verdict=Feasibility.NOT_SERVED, score=0.0, expected_minutes=None),
    )
    placement = Placement(DECISION, QueueType.GPU_FALLBACK, "gpu_fallback", 4, scores)
    assert drawn(classify_view([(classification, placement)]), 80) == (
        "\\x1b[2J[bold red]x[bold] \\u202etxt.md\n"
        "  type      audio, medium complexity\n"
        "  needs     gpu_preferred; 0.5 GB memory, 0.1 GB disk\n"
        "  estimate  1m 30s (confidence 90%)\n"
        "  priority  NORMAL\n"
        "  because   audio: by its content\n"
        "  lane      gpu_fallback, level 4\n"
        "  assign    worker-gpu-1 is expected to take it (confidence 80%)\n"
        "\n"
        "  WORKER        VERDICT     SCORE  RUNS FOR\n"
        "  worker-gpu-1  fit          0.83       18s\n"
        "  worker-cpu-1  not_served   0.00         –"
    )


def task(number):
    return SubmittedTask(
        task_id=f"id-{number}", source=HOSTILE, content_type=ContentType.AUDIO, queue="gpu_fallback",
        lane="gpu_fallback", worker="worker-gpu-1", priority="NORMAL", estimated_duration=1.5, decision=DECISION,
    )  # fmt: skip


def test_submit_shows_tasks_up_to_the_limit_and_a_summary_below():
    tasks = [task(n) for n in range(5)]
    assert drawn(submit_view(tasks, "5 submitted", {}, 1), 80) == (
        "TASK  SOURCE                             TYPE   PRIORITY  LANE          ESTIMATE\n"
        "id-0  …2J[bold red]x[bold] \\u202etxt.md  audio  NORMAL    gpu_fallback    1m 30s\n"
        "… and 4 more; --json lists them all\n"
        "\n"
        "5 submitted"
    )


def test_a_long_path_is_cut_at_its_beginning():
    long = task(1).model_copy(update={"source": "/data/" + "very-long/" * 9 + "日本語/report-27.pdf"})
    line = drawn(submit_view([long], "1 submitted", {}, None), 80).splitlines()[1]
    assert line.startswith("id-1  …")
    assert "日本語/report-27.pdf  audio" in line
    assert cell_len(line) <= 80


@pytest.mark.parametrize("width", [80, 100, 160])
def test_submit_shows_the_ids_of_the_tasks_at_every_width(width):
    tasks = [task(1).model_copy(update={"task_id": "027b6dfe-1fa4-4c11-9a93-7f3a0b3c55d1"})]
    heading, row, *_ = drawn(submit_view(tasks, "1 submitted", {}, None), width).splitlines()
    assert heading.startswith("TASK ")
    assert row.startswith("027b6dfe-1fa")


def test_submit_with_wait_has_a_column_of_final_states():
    text = drawn(submit_view([task(1)], "1 submitted, 1 completed", {"id-1": "completed"}, None), 120)
    assert "STATE" in text
    assert "completed" in text.splitlines()[1]
    assert "STATE" not in drawn(submit_view([task(1)], "1 submitted", {}, None), 120)
    assert drawn(submit_view([], "0 submitted", {}, None), 80) == "0 submitted"
