"""Leading: the lease is trusted for less than its lifetime, fenced when lost, and given up at the end."""

import pytest

from morag_queue.errors import ExitStatus, LeaseHeld, LeaseLost
from morag_queue.operations.leader import lead, leading
from tests.support.broker_drivers import MemoryDriver, move


@pytest.fixture
def driver():
    return MemoryDriver()


class OwnClock:
    """The holder's clock; it may differ from the server's."""

    def __init__(self) -> None:
        self.seconds = 77.0

    def __call__(self) -> float:
        return self.seconds


def test_a_second_leader_is_refused_with_the_name_of_the_first(driver):
    lead(driver.broker, "ann@a", "watch")
    driver.clock += 8
    with pytest.raises(
        LeaseHeld, match=r"ann@a leads the fleet with `watch` .term 1, for 8 s.: nothing was changed"
    ) as error:
        lead(driver.broker, "bob@b", "rebalance")
    assert error.value.exit_status is ExitStatus.LEASE_HELD


def test_a_lease_is_trusted_for_less_than_its_lifetime_by_the_holders_clock(driver):
    clock = OwnClock()
    leader = lead(driver.broker, "ann", "watch", seconds=10, clock=clock)
    clock.seconds += 5.9
    assert leader.is_trusted
    clock.seconds += 0.2
    assert not leader.is_trusted
    assert driver.broker.leases.current() is not None


def test_the_time_of_the_request_is_not_trusted(driver):
    clock = OwnClock()
    take = driver.broker.leases.take

    def slow(*arguments):
        clock.seconds += 7
        return take(*arguments)

    driver.broker.leases.take = slow
    assert not lead(driver.broker, "ann", "watch", seconds=10, clock=clock).is_trusted


def test_a_lease_is_renewed_after_a_third_of_its_lifetime(driver):
    clock = OwnClock()
    leader = lead(driver.broker, "ann", "watch", seconds=10, clock=clock)
    until = leader.lease.until
    for passed, renewed in ((2.9, False), (0.2, True)):
        clock.seconds += passed
        driver.clock += passed
        leader.keep()
        assert (leader.lease.until > until) is renewed
    clock.seconds += 5
    assert leader.is_trusted


def test_a_leader_that_slept_past_its_lease_changes_nothing(driver):
    clock = OwnClock()
    driver.submit("a")
    sleeper = lead(driver.broker, "ann", "watch", seconds=10, clock=clock)
    driver.clock += 60
    clock.seconds += 60
    other = lead(driver.broker, "bob", "watch", seconds=10)
    with pytest.raises(LeaseLost):
        driver.broker.moves.tasks([move("a", "cpu_standard", 4, "cpu_batch")], term=sleeper.term)
    with pytest.raises(LeaseLost, match="morag-queue stats"):
        sleeper.keep()
    assert sleeper.step_down() is False
    assert driver.broker.leases.current() == other.lease
    assert driver.ids("cpu_standard", 4) == ["a"]


def test_leaders_with_clocks_ten_minutes_apart_never_lead_together(driver):
    early, late = OwnClock(), OwnClock()
    late.seconds += 600
    lead(driver.broker, "ann", "watch", seconds=10, clock=early)
    with pytest.raises(LeaseHeld):
        lead(driver.broker, "bob", "watch", seconds=10, clock=late)
    driver.clock += 10
    assert lead(driver.broker, "bob", "watch", seconds=10, clock=late).term == "2"


def test_the_lease_is_given_up_even_after_an_error(driver):
    with pytest.raises(ZeroDivisionError), leading(driver.broker, "ann", "rebalance"):
        raise ZeroDivisionError
    assert driver.broker.leases.current() is None
