"""Scripts find the fields of records and messages whatever the spacing of the JSON."""

import json

import pytest

from morag_queue.broker.broken import BrokenValues
from morag_queue.broker.codec import LedgerRecord
from morag_queue.broker.dead_letters import DeadLetters
from morag_queue.broker.lane_search import LaneSearch
from morag_queue.broker.lanes import Moves
from morag_queue.broker.ledger import Ledger, TaskEnd
from morag_queue.broker.lost_work import LostWork
from morag_queue.broker.requeue import RequeueRequest, Requeues
from morag_queue.core.plan import MoveTask
from tests.broker.conftest import ScriptRunner

SPACINGS = {"as Python": (", ", ": "), "compact": (",", ":"), "wide": (" , ", "  :   ")}


@pytest.fixture(params=SPACINGS.values(), ids=SPACINGS)
def spacing(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


def respaced(runner: ScriptRunner, spacing: tuple[str, str], **header: object) -> str:
    """Writes one message of ours with that spacing; its id."""
    task_id = runner.send(headers={"morag_queue": header} if header else {})
    [raw] = runner.waiting()
    runner.client.delete(runner.keys.list("cpu_standard", 4))
    runner.put(json.dumps(json.loads(raw), separators=spacing))
    return task_id


def entry(runner: ScriptRunner, task_id: str, spacing: tuple[str, str], **fields: object) -> None:
    record = {
        "state": "queued", "enqueued_at": 100.5, "queue": "cpu_standard", "lane": "cpu_standard", "level": 4,
        "source": 'a "state": "completed"', "args": ["x"], **fields,
    }  # fmt: skip
    runner.client.set(runner.keys.task(task_id), json.dumps(record, separators=spacing))


def record(runner: ScriptRunner, task_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(runner.client.get(runner.keys.task(task_id)) or "{}")
    return found


def test_an_open_entry_is_found(runner: ScriptRunner, spacing: tuple[str, str]) -> None:
    entry(runner, "t", spacing)
    entry(runner, "u", spacing, state="completed")

    _, [found] = LostWork(runner.client, runner.keys, 60).open_tasks(0, 200.0)

    assert (found.task_id, found.enqueued_at, found.queue, found.level) == ("t", 100.5, "cpu_standard", 4)


def test_a_present_task_is_found(runner: ScriptRunner, spacing: tuple[str, str]) -> None:
    task_id = respaced(runner, spacing)

    assert LostWork(runner.client, runner.keys, 60).present([task_id], [("cpu_standard", 4, 1)]) == {task_id}


def test_a_task_is_found_by_its_id_and_enqueue_time(runner: ScriptRunner, spacing: tuple[str, str]) -> None:
    search = LaneSearch(runner.client, runner.keys)
    task_id = respaced(runner, spacing, enqueued_at=100.5)

    found = search.by_id(task_id, "cpu_standard", 4, 1, 100.5)

    assert found is not None
    assert found.depth == 1


def test_a_task_is_claimed_and_requeued_as_quarantined(runner: ScriptRunner, spacing: tuple[str, str]) -> None:
    task_id = respaced(runner, spacing)
    entry(runner, task_id, spacing)
    taken = runner.claim()
    assert taken is not None

    request = RequeueRequest(taken.tag, "run-1", task_id, "cpu_standard", 4, "w1 died", max_deaths=0)
    assert Requeues(runner.client, runner.keys, 60).apply([request]) == ["quarantined"]

    assert record(runner, task_id)["state"] == "quarantined"
    DeadLetters(runner.client, runner.keys, 60, BrokenValues(runner.keys)).drop([task_id])
    assert 0 < runner.client.ttl(runner.keys.task(task_id)) <= 60


def test_an_eta_is_written_into_a_requeued_message(runner: ScriptRunner, spacing: tuple[str, str]) -> None:
    task_id = respaced(runner, spacing)
    taken = runner.claim()
    assert taken is not None

    request = RequeueRequest(taken.tag, "run-1", task_id, "cpu_standard", 4, eta="2030-01-01T00:00:00+00:00")
    assert Requeues(runner.client, runner.keys, 60).apply([request]) == ["moved"]

    assert json.loads(runner.waiting()[0])["headers"]["eta"] == "2030-01-01T00:00:00+00:00"


def test_a_moved_task_has_its_new_place_in_message_and_ledger(runner: ScriptRunner, spacing: tuple[str, str]) -> None:
    task_id = respaced(runner, spacing)
    entry(runner, task_id, spacing)

    step = MoveTask(task_id=task_id, source="cpu_standard", target="cpu_batch", level=4, to_level=7, reason="x")
    assert Moves(runner.client, runner.keys).tasks([step]) == ["moved"]

    [raw] = runner.waiting("cpu_batch", 7)
    assert json.loads(raw)["properties"]["delivery_info"]["routing_key"] == "cpu_batch"
    assert (record(runner, task_id)["lane"], record(runner, task_id)["level"]) == ("cpu_batch", 7)
    assert record(runner, task_id)["source"] == 'a "state": "completed"'


def test_a_message_that_needs_a_gpu_stays_out_of_a_lane_of_workers_without(
    runner: ScriptRunner, spacing: tuple[str, str]
) -> None:
    task_id = respaced(runner, spacing, requires="gpu")
    moves = Moves(runner.client, runner.keys)

    assert moves.lane("cpu_standard", "cpu_batch", 4, 10, keeps_gpu=True).need_gpu == 1
    step = MoveTask(task_id=task_id, source="cpu_standard", target="cpu_batch", level=4, to_level=4, reason="x")
    assert moves.tasks([step]) == ["gpu"]


@pytest.mark.parametrize(
    ("capability", "field"), [("cpu", "audio|gpu_preferred|0|n"), ("gpu", "audio|gpu_preferred|1|n")]
)
def test_a_run_teaches_about_the_kind_of_its_worker(
    capability: str, field: str, runner: ScriptRunner, spacing: tuple[str, str]
) -> None:
    runner.send()
    taken = runner.claim()
    assert taken is not None
    info = json.dumps({"worker": "w1", "capability": capability}, separators=spacing)
    runner.client.hset(runner.keys.workers, "w1", info)
    learned = LedgerRecord({"content_type": "audio", "requires": "gpu_preferred", "estimated_minutes": 10.0})

    Ledger(runner.client, runner.keys, 60).settle(
        TaskEnd(taken.tag, taken.task_id, "w1", "cpu_standard", "completed", 1.0, 60.0, learned)
    )

    assert runner.client.hget(runner.keys.surprises, field) == b"1"
