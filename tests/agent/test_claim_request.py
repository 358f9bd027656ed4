"""A claim request is encoded as redis-py would encode it, with the lanes in the order in which they are read."""

import redis
from redis.connection import Connection

from morag_queue.agent.claim_request import Requests
from morag_queue.broker.keys import Keys
from tests.broker.conftest import ScriptRunner

KEYS = Keys("fleet-é", "p:", "::")


def words(command: bytes) -> list[bytes]:
    """The words of a command in Redis' protocol."""
    return command.split(b"\r\n")[2::2]


def test_a_claim_request_is_encoded_as_redis_py_encodes_it() -> None:
    request = Requests("w-é", "run-1", ["cpu_standard.w-é", "cpu_batch"], range(10), KEYS)
    command = request.claim("tag", waits=False, is_loaded=True)

    assert command == b"".join(Connection().pack_command(*words(command)))


def test_own_lanes_come_first_then_queues_in_their_order_then_other_lanes() -> None:
    queues = ["mine", "cpu_batch", "gpu_priority", "cpu_standard.other", "cpu_batch.w", "cpu_standard.w", "celery"]

    request = Requests("w", "run-1", queues, [0, 5], KEYS)
    sent = [word.decode() for word in words(request.claim("t", waits=False, is_loaded=True))]

    ordered = ["cpu_standard.w", "cpu_batch.w", "gpu_priority", "cpu_standard.other", "cpu_batch", "celery", "mine"]
    assert sent[12:20] == ["t", "0", "", "w", "run-1", "p:", "::", "0 5"]
    lanes = sent[20:]
    assert lanes[0::3] == ordered
    assert lanes[2::3] == ["1", "1", "0", "0", "0", "0", "0"]


def test_the_server_accepts_a_claim_by_its_text_and_by_its_digest(runner: ScriptRunner, client: redis.Redis) -> None:
    sent = [runner.send(), runner.send()]
    request = Requests("w1", "run-1", ["cpu_standard", "cpu_standard.w1"], range(10), runner.keys)

    with client.client() as single:
        for number, is_loaded in enumerate((False, True)):
            single.connection.send_packed_command([request.claim(f"tag-{number}", waits=False, is_loaded=is_loaded)])
            lane, _, _, _ = single.connection.read_response()
            assert lane == b"cpu_standard"

    assert [runner.held(f"tag-{number}")[2] for number in range(2)] == sent
