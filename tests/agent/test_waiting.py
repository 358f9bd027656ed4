"""What a channel asks next, by what it was answered."""

import pytest

from morag_queue.agent.waiting import NothingToClaim, Request, Waiting


def idle() -> Waiting:
    """A channel whose claim found nothing, before it asks to wait."""
    waiting = Waiting(b"bell")
    assert not waiting.found_nothing(NothingToClaim("untracked"))
    assert waiting.next is Request.WAIT
    return waiting


@pytest.mark.parametrize("answer", ["tracking", "waiting"])
def test_a_worker_that_was_idle_asks_to_wait_after_its_message(answer: str) -> None:
    waiting = idle()
    assert waiting.answered(answer)
    waiting.woken([b"lane"])

    waiting.took()

    assert waiting.next is Request.WAIT


def test_a_worker_that_finds_work_whenever_it_asks_to_wait_only_claims() -> None:
    waiting = idle()
    assert not waiting.answered("claim")
    assert waiting.next is Request.CLAIM
    assert waiting.is_registered

    waiting.took()

    assert waiting.next is Request.CLAIM
    assert not waiting.is_registered
