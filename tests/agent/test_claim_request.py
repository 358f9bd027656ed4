"""The claim request is encoded as redis-py encodes it, and lists the lanes in the order of claiming."""

import redis
from redis.connection import Connection

from morag_queue.agent.claim_request import ClaimRequest
from morag_queue.broker.keys import Keys
from tests.broker.conftest import Bench

KEYS = Keys("fleet-é", "p:", "::")


def words(request: bytes) -> list[bytes]:
    """The words of a command in the Redis protocol."""
    return request.split(b"\r\n")[2::2]


def test_the_request_is_encoded_as_redis_py_encodes_it() -> None:
    request = ClaimRequest("w-é", "run-1", ["cpu_standard.w-é", "cpu_batch"], range(10), KEYS).asked(
        "tag", is_loaded=True
    )

    assert request == b"".join(Connection().pack_command(*words(request)))


def test_own_lanes_come_first_then_the_shared_queues_then_others() -> None:
    queues = ["mine", "cpu_batch", "gpu_priority", "cpu_standard.other", "cpu_batch.w", "cpu_standard.w", "celery"]

    asked = [
        word.decode() for word in words(ClaimRequest("w", "run-1", queues, [0, 5], KEYS).asked("t", is_loaded=True))
    ]

    ordered = ["cpu_standard.w", "cpu_batch.w", "gpu_priority", "cpu_standard.other", "cpu_batch", "celery", "mine"]
    described = asked[asked.index("7") + 1 :]
    assert described[0:21:3] == ordered
    assert described[2:21:3] == ["1", "1", "", "", "", "", ""]
    assert described[21:] == ["0", "5"]
    lists = asked[9:23]
    assert lists == [KEYS.list(name, level) for level in (0, 5) for name in ordered]


def test_the_server_accepts_the_script_as_text_and_as_its_hash(bench: Bench, client: redis.Redis) -> None:
    sent = [bench.send(), bench.send()]
    request = ClaimRequest("w1", "run-1", ["cpu_standard", "cpu_standard.w1"], range(10), bench.keys)
    connection = client.connection_pool.get_connection()

    for number, is_loaded in enumerate((False, True)):
        connection.send_packed_command([request.asked(f"tag-{number}", is_loaded=is_loaded)])
        lane, _, _ = connection.read_response()
        assert lane == b"cpu_standard"

    client.connection_pool.release(connection)
    assert [bench.held(f"tag-{number}")[2] for number in range(2)] == sent
