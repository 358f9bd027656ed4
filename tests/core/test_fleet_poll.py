"""Detecting changes between polls of a fleet that is played by hand."""

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


class PlayedFleet:
    """Polls of a fleet of two workers, half a second apart. State that a step does not mention stays as it was."""

    def __init__(self, **more):
        self.infos = infos()
        self.now = FleetPoll(
            at=NOW, up_since=NOW - 1e6, names=frozenset(info.client_name for info in self.infos.values()),
            acting={name: info.incarnation for name, info in self.infos.items()},
            beats={name: LastBeat(NOW) for name in self.infos}, **more,
        )  # fmt: skip
        self.history, self.first = detect_changes(PollHistory(), self.now, self.infos, POLICY)

    def pass_(self, seconds=0.5, beating=NAMES, **fields) -> list[FleetChange]:
        """Let time pass, polling every half second; return the changes. Workers in `beating` beat before each poll."""
        changes = []
        for _ in range(round(seconds / 0.5)):
            at = self.now.at + 0.5
            beats = {**self.now.beats, **fields.get("beats", {})}
            beats |= {name: replace(beats[name], at=at) for name in beating if name in beats}
            self.now = replace(self.now, **{**fields, "at": at, "beats": beats})
            self.history, new = detect_changes(self.history, self.now, self.infos, POLICY)
            changes += new
        return changes

    def without(self, name):
        return self.now.names - {f"mq.{name}"}


def kinds(changes):
    return [(change.kind, change.worker) for change in changes]


def test_a_fleet_where_nothing_happens_has_no_changes():
    fleet = PlayedFleet()
    assert fleet.first == ()
    assert fleet.pass_(300) == []


def test_workers_of_the_first_poll_have_not_joined():
    assert PlayedFleet().first == ()


def test_a_new_worker_has_joined():
    fleet = PlayedFleet()
    assert kinds(fleet.pass_(acting={**fleet.now.acting, "w3": "w3.now"})) == [(ChangeKind.JOINED, "w3")]
    assert fleet.pass_(10) == []


def test_a_new_run_of_a_worker_has_returned():
    fleet = PlayedFleet()
    assert kinds(fleet.pass_(acting={**fleet.now.acting, "w1": "w1.other"})) == [(ChangeKind.RETURNED, "w1")]


def test_fencing_a_worker_is_not_a_return():
    fleet = PlayedFleet()
    assert fleet.pass_(acting={**fleet.now.acting, "w1": FENCED}) == []
    assert kinds(fleet.pass_(acting={**fleet.now.acting, "w1": "w1.other"})) == [(ChangeKind.RETURNED, "w1")]


def test_a_worker_that_shuts_down_has_left_and_is_never_overdue():
    fleet = PlayedFleet()
    bye = {"beats": {"w1": LastBeat(NOW, stopped=True)}, "names": fleet.without("w1")}
    assert kinds(fleet.pass_(beating=["w2"], **bye)) == [(ChangeKind.LEFT, "w1")]
    assert fleet.pass_(300, beating=["w2"], **bye) == []


def test_a_killed_worker_is_gone_within_a_second_and_overdue_within_four():
    fleet = PlayedFleet()
    fleet.pass_(10)
    assert kinds(fleet.pass_(1.0, beating=["w2"], names=fleet.without("w1"))) == [(ChangeKind.GONE, "w1")]
    assert kinds(fleet.pass_(3.0, beating=["w2"])) == [(ChangeKind.OVERDUE, "w1")]
    assert fleet.history.proved_absent(fleet.infos) == {"w1"}
    assert fleet.pass_(30, beating=["w2"]) == []


def test_a_worker_that_was_silent_before_is_overdue_at_once():
    fleet = PlayedFleet()
    fleet.pass_(10)
    fleet.pass_(5, beating=["w2"])
    assert (ChangeKind.OVERDUE, "w1") in kinds(fleet.pass_(1.0, beating=["w2"], names=fleet.without("w1")))


def test_a_worker_that_reconnects_is_not_overdue():
    fleet = PlayedFleet()
    fleet.pass_(10)
    everybody = fleet.now.names
    assert kinds(fleet.pass_(2.0, beating=["w2"], names=fleet.without("w1"))) == [(ChangeKind.GONE, "w1")]
    assert fleet.pass_(60, names=everybody) == []
    assert not fleet.history.proved_absent(fleet.infos)


@pytest.mark.parametrize("how", ["the poll failed", "the server restarted"])
def test_absence_is_observed_anew_after_an_interruption(how):
    """When a server comes back after a minute, its workers are not connected yet, but they are not dead."""
    fleet = PlayedFleet()
    fleet.pass_(10)
    fleet.history = fleet.history.interrupted()
    fleet.now = replace(fleet.now, at=fleet.now.at + 60, names=frozenset())
    if how == "the server restarted":
        fleet.now = replace(fleet.now, up_since=fleet.now.at)
    assert ChangeKind.OVERDUE not in {change.kind for change in fleet.pass_(4.5, beating=[])}
    assert {change.worker for change in fleet.pass_(2, beating=[]) if change.kind is ChangeKind.OVERDUE} == {"w1", "w2"}


def test_no_worker_is_proved_absent_if_client_list_is_forbidden():
    fleet = PlayedFleet()
    assert fleet.pass_(30, beating=[], names=None) == []
    assert not fleet.history.proved_absent(fleet.infos)


def test_a_worker_without_a_client_name_is_never_absent():
    fleet = PlayedFleet()
    fleet.infos = infos() | {"w1": worker("w1").info}
    assert fleet.pass_(30, beating=["w2"], names=fleet.without("w1")) == []


def test_a_suspended_worker_is_silent_after_the_heartbeat_timeout():
    fleet = PlayedFleet()
    assert fleet.pass_(59, beating=["w2"]) == []
    assert kinds(fleet.pass_(2, beating=["w2"])) == [(ChangeKind.SILENT, "w1")]
    assert fleet.history.silent(fleet.infos, POLICY) == {"w1"}
    assert fleet.pass_(300, beating=["w2"]) == []


def test_cordons_are_reported_when_set_and_lifted_but_not_at_the_first_poll():
    assert PlayedFleet(cordons={"w1": "cordoned"}).first == ()
    fleet = PlayedFleet()
    assert fleet.pass_(1, cordons={"w1": "draining"}) == [FleetChange(ChangeKind.OUT_OF_SERVICE, "w1", "draining")]
    assert fleet.pass_(1, cordons={"w1": "drained"}) == [FleetChange(ChangeKind.OUT_OF_SERVICE, "w1", "drained")]
    assert kinds(fleet.pass_(1, cordons={})) == [(ChangeKind.IN_SERVICE, "w1")]


def test_an_idle_worker_while_tasks_wait_is_reported_once():
    fleet = PlayedFleet()
    assert kinds(fleet.pass_(1.5, waiting={"gpu_fallback": 3})) == [(ChangeKind.IDLE, "")]
    assert fleet.pass_(12) == []


def test_a_fleet_with_little_work_does_not_report_idle_every_second():
    fleet = PlayedFleet()
    changes = []
    for _ in range(10):
        changes += fleet.pass_(1.5, waiting={"cpu_batch": 1}) + fleet.pass_(0.5, waiting={})
    assert len(changes) <= 4


def test_a_busy_worker_is_not_idle():
    fleet = PlayedFleet()
    busy = {name: LastBeat(NOW, busy=1) for name in NAMES}
    assert fleet.pass_(60, beats=busy, waiting={"cpu_standard": 5}) == []


def test_a_worker_that_takes_nothing_for_fifteen_seconds_has_stalled():
    fleet = PlayedFleet()
    changes = fleet.pass_(20, beats={"w2": LastBeat(NOW, busy=1)}, waiting={"cpu_standard": 5})
    assert kinds(changes) == [(ChangeKind.IDLE, ""), (ChangeKind.STALLED, "w1")]
    assert set(fleet.history.idle) == {"w1"}


@pytest.mark.parametrize("reason", ["cordoned", "other queue"])
def test_a_worker_that_may_not_take_the_tasks_has_not_stalled(reason):
    fleet = PlayedFleet(cordons={"w1": "cordoned"} if reason == "cordoned" else {})
    queue = "cpu_standard" if reason == "cordoned" else "gpu_priority"
    changes = fleet.pass_(60, beats={"w2": LastBeat(NOW, busy=1)}, waiting={queue: 5})
    assert ChangeKind.STALLED not in {change.kind for change in changes}


def test_repeated_restarts_are_reported_as_flapping_once():
    fleet = PlayedFleet()
    changes = []
    for n in range(5):
        changes += fleet.pass_(10, acting={**fleet.now.acting, "w1": f"w1.run{n}"})
    flapping = [change for change in changes if change.kind is ChangeKind.FLAPPING]
    assert flapping == [FleetChange(ChangeKind.FLAPPING, "w1", count=5)]
    assert ChangeKind.FLAPPING not in {
        change.kind for change in fleet.pass_(10, acting={**fleet.now.acting, "w1": "w1.run6"})
    }


def test_clean_restarts_are_not_flapping():
    fleet = PlayedFleet()
    changes = []
    for n in range(8):
        changes += fleet.pass_(1, beating=["w2"], beats={"w1": LastBeat(fleet.now.at, stopped=True)})
        changes += fleet.pass_(1, beats={"w1": LastBeat(fleet.now.at)}, acting={**fleet.now.acting, "w1": f"w1.run{n}"})
    assert ChangeKind.FLAPPING not in {change.kind for change in changes}
