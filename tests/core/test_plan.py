"""The counts of an applied plan, and those that a plan expects."""

from morag_queue.core.plan import Applied, MoveLane, MoveTask, Plan, Rejected, Resend, TakeBack

COUNTS = [name for name, field in Applied.model_fields.items() if field.annotation is int]


def test_the_sum_of_two_counts_adds_every_field_and_keeps_the_first_plan_id():
    first = Applied(plan_id="a", rejected=(Rejected(task_id="x", reason="gone"),), **dict.fromkeys(COUNTS, 1))
    second = Applied(plan_id="b", rejected=(Rejected(task_id="y", reason="gone"),), **dict.fromkeys(COUNTS, 2))
    total = first + second
    assert {name: getattr(total, name) for name in COUNTS} == dict.fromkeys(COUNTS, 3)
    assert [rejected.task_id for rejected in total.rejected] == ["x", "y"]
    assert total.plan_id == "a"


def test_what_was_found_in_place_is_no_change():
    assert not Applied(plan_id="p", already=1, unchanged=1, foreign=1, finished=1).has_changed
    assert all(Applied(plan_id="p", **{name: 1}).has_changed for name in ("moved", "taken_back", "resent", "revoked"))


def test_the_expected_count_of_a_plan_counts_every_kind_of_step():
    place = {"source": "a", "target": "b", "level": 4, "reason": ""}
    steps = (
        MoveLane(count=5, **place),
        MoveTask(task_id="x", to_level=4, **place),
        TakeBack(task_id="y", tag="t", worker="w", incarnation="w.1", target="b", level=4, reason=""),
        Resend(task_id="z", reason=""),
    )
    expected = Plan(plan_id="p", verb="sweep", fleet="", taken_at=0.0, steps=steps).expected
    assert expected == Applied(plan_id="p", moved=6, taken_back=1, resent=1)
