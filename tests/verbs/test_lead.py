"""To lead: trusted for less than the lease lives, fenced when it was lost, given back at the end."""

import pytest

from morag_queue.errors import ExitStatus, LeaseHeld, LeaseLost
from morag_queue.operations.leader import lead, leading
from tests.support.broker_drivers import MemoryDriver, move


@pytest.fixture
def rig():
    return MemoryDriver()


class OwnClock:
    """The holder's clock, which need not agree with the server's."""

    def __init__(self) -> None:
        self.seconds = 77.0

    def __call__(self) -> float:
        return self.seconds


def test_a_second_leader_is_refused_and_told_who_leads_and_since_when(rig):
    lead(rig.broker, "ann@a", "watch")
    rig.clock += 8
    with pytest.raises(
        LeaseHeld, match=r"ann@a leads the fleet by `watch` for 8 s .term 1.: nothing was changed"
    ) as error:
        lead(rig.broker, "bob@b", "rebalance")
    assert error.value.exit_status is ExitStatus.LEASE_HELD


def test_it_is_trusted_for_less_than_it_lives_by_the_holders_own_clock(rig):
    clock = OwnClock()
    leader = lead(rig.broker, "ann", "watch", seconds=10, clock=clock)
    clock.seconds += 5.9
    assert leader.is_trusted
    clock.seconds += 0.2
    assert not leader.is_trusted
    assert rig.broker.leases.current() is not None


def test_time_that_the_answer_took_is_not_trusted(rig):
    clock = OwnClock()
    take = rig.broker.leases.take

    def slow(*arguments):
        clock.seconds += 7
        return take(*arguments)

    rig.broker.leases.take = slow
    assert not lead(rig.broker, "ann", "watch", seconds=10, clock=clock).is_trusted


def test_it_is_renewed_when_a_third_of_its_life_has_passed_and_not_before(rig):
    clock = OwnClock()
    leader = lead(rig.broker, "ann", "watch", seconds=10, clock=clock)
    until = leader.lease.until
    for passed, renewed in ((2.9, False), (0.2, True)):
        clock.seconds += passed
        rig.clock += passed
        leader.keep()
        assert (leader.lease.until > until) is renewed
    clock.seconds += 5
    assert leader.is_trusted


def test_a_leader_that_slept_past_its_lease_learns_it_and_has_changed_nothing(rig):
    clock = OwnClock()
    rig.submit("a")
    sleeper = lead(rig.broker, "ann", "watch", seconds=10, clock=clock)
    rig.clock += 60
    clock.seconds += 60
    other = lead(rig.broker, "bob", "watch", seconds=10)
    with pytest.raises(LeaseLost):
        rig.broker.moves.tasks([move("a", "cpu_standard", 4, "cpu_batch")], term=sleeper.term)
    with pytest.raises(LeaseLost, match="morag-queue stats"):
        sleeper.keep()
    assert sleeper.step_down() is False
    assert rig.broker.leases.current() == other.lease
    assert rig.ids("cpu_standard", 4) == ["a"]


def test_leaders_with_clocks_ten_minutes_apart_never_lead_at_once(rig):
    early, late = OwnClock(), OwnClock()
    late.seconds += 600
    lead(rig.broker, "ann", "watch", seconds=10, clock=early)
    with pytest.raises(LeaseHeld):
        lead(rig.broker, "bob", "watch", seconds=10, clock=late)
    rig.clock += 10
    assert lead(rig.broker, "bob", "watch", seconds=10, clock=late).term == "2"


def test_the_lease_is_given_back_whatever_happens_in_between(rig):
    with pytest.raises(ZeroDivisionError), leading(rig.broker, "ann", "rebalance"):
        raise ZeroDivisionError
    assert rig.broker.leases.current() is None
