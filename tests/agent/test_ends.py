"""The end of a task that is yet to be written."""

from morag_queue.agent.identity import Claim, Identity, TaskOutcome
from morag_queue.agent.unacked import ClaimQoS


class Channel:
    """What ClaimQoS reads of a channel when it is made."""

    morag_queue = Identity("worker-1", "mq", 60.0)
    do_restore = False


def test_a_later_report_does_not_change_the_end_of_a_task():
    qos = ClaimQoS(Channel())
    claim = Claim("tag", "task-1", "t.hold", "cpu_standard", 4, 0.0)
    qos.claimed(claim)

    qos.ends("tag", TaskOutcome("cancelled", error="terminated"))
    claim.unwritten = True  # it is acknowledged, and goes to the broker with the next request
    qos.ends("tag", TaskOutcome("failed", error="Terminated: 15"))

    assert claim.outcome == TaskOutcome("cancelled", error="terminated")
