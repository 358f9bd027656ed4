from redis.exceptions import OutOfMemoryError

from morag_queue.agent.request import ERROR_CHARACTERS, described
from morag_queue.core.failure import FailureKind, kind_of


def test_a_long_error_of_a_full_server_keeps_the_reason_at_its_end() -> None:
    reason = "caused error: command not allowed when used memory > 'maxmemory'."

    text = described(OutOfMemoryError(f"Command # 1 (SETEX key {'x' * 5000}) of pipeline {reason}"))

    assert text.startswith("OutOfMemoryError: Command # 1 (SETEX")
    assert len(text) <= ERROR_CHARACTERS
    assert kind_of(text) is FailureKind.NETWORK


def test_a_short_error_is_kept_as_it_is() -> None:
    assert described(ValueError("no such file")) == "ValueError: no such file"
