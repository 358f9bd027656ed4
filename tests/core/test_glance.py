"""What is news: a fleet played by hand, one glance after another."""

from dataclasses import replace

import pytest

from morag_queue.core.fleet_poll import (
    FENCED,
    ChangeKind,
    FleetChange,
    FleetPoll,
    LastBeat,
    PollHistory,
    detect_changes,
)
from morag_queue.core.policy import Policy
from tests.core.fleets import NOW, worker

POLICY = Policy()
NAMES = ("w1", "w2")


def infos(*names, **more):
    return {name: worker(name, client_name=f"mq.{name}", **more).info for name in names or NAMES}


class Played:
    """Glances of a fleet of two, in steps of half a second; what is not said goes on as it was."""

    def __init__(self, **more):
        self.infos = infos()
        self.now = FleetPoll(
            at=NOW, up_since=NOW - 1e6, names=frozenset(one.client_name for one in self.infos.values()),
            acting={name: one.incarnation for name, one in self.infos.items()},
            beats={name: LastBeat(NOW) for name in self.infos}, **more,
        )  # fmt: skip
        self.history, self.first = detect_changes(PollHistory(), self.now, self.infos, POLICY)

    def pass_(self, seconds=0.5, beating=NAMES, **fields) -> list[FleetChange]:
        """That long, with a look each half second; everything new in it. Who is `beating` beats at each look."""
        changes = []
        for _ in range(round(seconds / 0.5)):
            at = self.now.at + 0.5
            beats = {**self.now.beats, **fields.get("beats", {})}
            beats |= {name: replace(beats[name], at=at) for name in beating if name in beats}
            self.now = replace(self.now, **{**fields, "at": at, "beats": beats})
            self.history, items = detect_changes(self.history, self.now, self.infos, POLICY)
            changes += items
        return changes

    def without(self, name):
        return self.now.names - {f"mq.{name}"}


def kinds(changes):
    return [(one.kind, one.worker) for one in changes]


def test_a_fleet_in_which_nothing_happens_is_no_news():
    fleet = Played()
    assert fleet.first == ()
    assert fleet.pass_(300) == []


def test_who_was_there_at_the_first_look_has_not_just_joined():
    assert Played().first == ()


def test_a_worker_that_registers_has_joined():
    fleet = Played()
    assert kinds(fleet.pass_(acting={**fleet.now.acting, "w3": "w3.now"})) == [(ChangeKind.JOINED, "w3")]
    assert fleet.pass_(10) == []


def test_another_run_in_a_name_has_returned():
    fleet = Played()
    assert kinds(fleet.pass_(acting={**fleet.now.acting, "w1": "w1.other"})) == [(ChangeKind.RETURNED, "w1")]


def test_a_fenced_name_is_nobody_who_returns():
    fleet = Played()
    assert fleet.pass_(acting={**fleet.now.acting, "w1": FENCED}) == []
    assert kinds(fleet.pass_(acting={**fleet.now.acting, "w1": "w1.other"})) == [(ChangeKind.RETURNED, "w1")]


def test_who_says_goodbye_has_left_and_is_never_overdue():
    fleet = Played()
    bye = {"beats": {"w1": LastBeat(NOW, stopped=True)}, "names": fleet.without("w1")}
    assert kinds(fleet.pass_(beating=["w2"], **bye)) == [(ChangeKind.LEFT, "w1")]
    assert fleet.pass_(300, beating=["w2"], **bye) == []


def test_a_killed_worker_is_gone_at_once_and_overdue_within_four_seconds():
    fleet = Played()
    fleet.pass_(10)
    assert kinds(fleet.pass_(1.0, beating=["w2"], names=fleet.without("w1"))) == [(ChangeKind.GONE, "w1")]
    assert kinds(fleet.pass_(3.0, beating=["w2"])) == [(ChangeKind.OVERDUE, "w1")]
    assert fleet.history.proved_absent(fleet.infos) == {"w1"}
    assert fleet.pass_(30, beating=["w2"]) == []


def test_a_worker_that_had_been_silent_before_is_overdue_at_once():
    fleet = Played()
    fleet.pass_(10)
    fleet.pass_(5, beating=["w2"])
    assert (ChangeKind.OVERDUE, "w1") in kinds(fleet.pass_(1.0, beating=["w2"], names=fleet.without("w1")))


def test_a_worker_that_reconnects_was_never_dead():
    fleet = Played()
    fleet.pass_(10)
    everybody = fleet.now.names
    assert kinds(fleet.pass_(2.0, beating=["w2"], names=fleet.without("w1"))) == [(ChangeKind.GONE, "w1")]
    assert fleet.pass_(60, names=everybody) == []
    assert not fleet.history.proved_absent(fleet.infos)


@pytest.mark.parametrize("how", ["our look failed", "the server started again"])
def test_after_an_interruption_absence_has_to_be_seen_anew(how):
    """A server that was away for a minute comes back to a fleet that is not connected yet, and is not dead."""
    fleet = Played()
    fleet.pass_(10)
    fleet.history = fleet.history.interrupted()
    fleet.now = replace(fleet.now, at=fleet.now.at + 60, names=frozenset())
    if how == "the server started again":
        fleet.now = replace(fleet.now, up_since=fleet.now.at)
    assert ChangeKind.OVERDUE not in {one.kind for one in fleet.pass_(4.5, beating=[])}
    assert {one.worker for one in fleet.pass_(2, beating=[]) if one.kind is ChangeKind.OVERDUE} == {"w1", "w2"}


def test_where_the_list_of_clients_may_not_be_read_nobody_is_proved_dead():
    fleet = Played()
    assert fleet.pass_(30, beating=[], names=None) == []
    assert not fleet.history.proved_absent(fleet.infos)


def test_a_worker_that_has_no_client_name_cannot_be_seen_to_be_absent():
    fleet = Played()
    fleet.infos = infos() | {"w1": worker("w1").info}
    assert fleet.pass_(30, beating=["w2"], names=fleet.without("w1")) == []


def test_a_stopped_process_is_silent_after_the_heartbeat_timeout():
    fleet = Played()
    assert fleet.pass_(59, beating=["w2"]) == []
    assert kinds(fleet.pass_(2, beating=["w2"])) == [(ChangeKind.SILENT, "w1")]
    assert fleet.history.silent(fleet.infos, POLICY) == {"w1"}
    assert fleet.pass_(300, beating=["w2"]) == []


def test_a_cordon_is_told_when_it_is_placed_and_when_it_is_lifted_and_not_at_the_first_look():
    assert Played(cordons={"w1": "cordoned"}).first == ()
    fleet = Played()
    assert fleet.pass_(1, cordons={"w1": "draining"}) == [FleetChange(ChangeKind.OUT_OF_SERVICE, "w1", "draining")]
    assert fleet.pass_(1, cordons={"w1": "drained"}) == [FleetChange(ChangeKind.OUT_OF_SERVICE, "w1", "drained")]
    assert kinds(fleet.pass_(1, cordons={})) == [(ChangeKind.IN_SERVICE, "w1")]


def test_somebody_idle_while_work_waits_calls_once_for_a_turn():
    fleet = Played()
    assert kinds(fleet.pass_(1.5, waiting={"gpu_fallback": 3})) == [(ChangeKind.IDLE, "")]
    assert fleet.pass_(12) == []


def test_a_fleet_with_little_to_do_does_not_call_every_second():
    fleet = Played()
    calls = []
    for _ in range(10):
        calls += fleet.pass_(1.5, waiting={"cpu_batch": 1}) + fleet.pass_(0.5, waiting={})
    assert len(calls) <= 4


def test_who_is_busy_is_not_idle():
    fleet = Played()
    busy = {name: LastBeat(NOW, busy=1) for name in NAMES}
    assert fleet.pass_(60, beats=busy, waiting={"cpu_standard": 5}) == []


def test_who_takes_nothing_for_a_quarter_of_a_minute_while_its_work_waits_has_stalled():
    fleet = Played()
    changes = fleet.pass_(20, beats={"w2": LastBeat(NOW, busy=1)}, waiting={"cpu_standard": 5})
    assert kinds(changes) == [(ChangeKind.IDLE, ""), (ChangeKind.STALLED, "w1")]
    assert set(fleet.history.idle) == {"w1"}


@pytest.mark.parametrize("reason", ["cordoned", "other queue"])
def test_who_may_not_take_it_has_not_stalled(reason):
    fleet = Played(cordons={"w1": "cordoned"} if reason == "cordoned" else {})
    queue = "cpu_standard" if reason == "cordoned" else "gpu_priority"
    changes = fleet.pass_(60, beats={"w2": LastBeat(NOW, busy=1)}, waiting={queue: 5})
    assert ChangeKind.STALLED not in {one.kind for one in changes}


def test_a_worker_that_starts_again_and_again_is_flapping_once():
    fleet = Played()
    told = []
    for n in range(5):
        told += fleet.pass_(10, acting={**fleet.now.acting, "w1": f"w1.run{n}"})
    flapping = [one for one in told if one.kind is ChangeKind.FLAPPING]
    assert flapping == [FleetChange(ChangeKind.FLAPPING, "w1", count=5)]
    assert ChangeKind.FLAPPING not in {
        one.kind for one in fleet.pass_(10, acting={**fleet.now.acting, "w1": "w1.run6"})
    }


def test_restarts_in_good_order_are_no_flapping():
    fleet = Played()
    told = []
    for n in range(8):
        told += fleet.pass_(1, beating=["w2"], beats={"w1": LastBeat(fleet.now.at, stopped=True)})
        told += fleet.pass_(1, beats={"w1": LastBeat(fleet.now.at)}, acting={**fleet.now.acting, "w1": f"w1.run{n}"})
    assert ChangeKind.FLAPPING not in {one.kind for one in told}
