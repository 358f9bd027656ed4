from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.redis import Channel

from morag_queue.core.levels import (
    DEFAULT_STEPS,
    LEVELS,
    common_steps,
    level,
    parse_priority,
    priority_of_level,
    readable,
)
from morag_queue.core.model import QueuePriority
from morag_queue.core.policy import Order

TIERS = sorted(QueuePriority, reverse=True)
priorities = st.sampled_from(TIERS)
minutes = st.floats(allow_nan=True, allow_infinity=True)
steps = st.sets(st.integers(0, 9), min_size=1).map(lambda chosen: tuple(sorted(chosen)))


@pytest.mark.parametrize(
    ("priority", "seconds", "expected"),
    [
        ("URGENT", 0, 0), ("URGENT", 90_000, 0),
        ("HIGH", 60, 1), ("HIGH", 61, 2),
        ("NORMAL", 30, 3), ("NORMAL", 31, 4), ("NORMAL", 120, 4), ("NORMAL", 121, 5),
        ("LOW", 60, 6), ("LOW", 61, 7),
        ("BATCH", 60, 8), ("BATCH", 61, 9),
    ],
)  # fmt: skip
def test_the_strict_level_is_the_first_of_the_tier_plus_the_number_of_cuts_exceeded(priority, seconds, expected):
    assert level(QueuePriority[priority], seconds / 60, Order.STRICT) == expected


@pytest.mark.parametrize(
    ("priority", "seconds", "wait_s", "expected"),
    [
        # floor(−log2(w² (1 + wait/7200) / (p + 5)) / 10 × 9) by hand: 25/65 → 1.24 → 1, so the level is 2
        ("NORMAL", 60, 0, 2), ("HIGH", 600, 0, 3), ("BATCH", 60, 0, 6), ("LOW", 600, 0, 6),
        # two hours of waiting double the index: 50/65 → 0.34 → 0
        ("NORMAL", 60, 7200, 1),
        ("URGENT", 36_000, 0, 0), ("BATCH", 36_000, 0, 9),
    ],
)  # fmt: skip
def test_the_weighted_level_follows_the_logarithm_of_weight_squared_over_length(priority, seconds, wait_s, expected):
    assert level(QueuePriority[priority], seconds / 60, Order.WEIGHTED, wait_s=wait_s) == expected


def test_a_short_normal_overtakes_a_long_high_in_weighted_order_only():
    short, long = 0.1, 60.0
    assert level(QueuePriority.NORMAL, short, Order.WEIGHTED) < level(QueuePriority.HIGH, long, Order.WEIGHTED)
    assert level(QueuePriority.NORMAL, short, Order.STRICT) > level(QueuePriority.HIGH, long, Order.STRICT)


@given(priorities, minutes, st.sampled_from(Order), st.floats())
def test_every_task_has_a_level_from_0_to_9_and_only_urgent_tasks_have_0(priority, estimate, order, wait_s):
    found = level(priority, estimate, order, wait_s=wait_s)
    assert found in LEVELS
    assert (found == 0) == (priority is QueuePriority.URGENT)


@given(minutes, minutes)
def test_a_tier_is_always_before_the_next_one_in_strict_order(first, second):
    for higher, lower in pairwise(TIERS):
        assert level(higher, first, Order.STRICT) < level(lower, second, Order.STRICT)


@given(priorities, st.sampled_from(Order), st.floats(0, 1e6), st.floats(0, 1e6))
def test_inside_a_tier_a_shorter_task_is_never_behind_a_longer_one(priority, order, first, second):
    assert level(priority, min(first, second), order) <= level(priority, max(first, second), order)


@given(priorities, st.floats(0, 1e6), st.sampled_from(Order), st.floats(0, 1e7))
def test_waiting_never_raises_the_level(priority, estimate, order, wait_s):
    assert level(priority, estimate, order, wait_s=wait_s) <= level(priority, estimate, order)


def test_an_estimate_that_is_not_a_number_counts_as_a_long_one():
    assert level(QueuePriority.NORMAL, float("nan"), Order.STRICT) == 5


@pytest.mark.parametrize("order", Order)
def test_kombus_default_steps_take_urgent_high_normal_and_the_rest(order):
    short = [level(priority, 0.1, order, steps=DEFAULT_STEPS) for priority in TIERS]
    assert short == ([0, 3, 6, 9, 9] if order is Order.STRICT else [0, 3, 3, 3, 6])


@given(priorities, minutes, st.sampled_from(Order), steps)
def test_the_level_is_a_step_and_the_first_one_is_for_urgent_tasks_alone_if_there_are_two(
    priority, estimate, order, polled
):
    found = level(priority, estimate, order, steps=polled)
    assert found in polled
    if len(polled) > 1:
        assert (found == polled[0]) == (priority is QueuePriority.URGENT)


@given(minutes, minutes, steps)
def test_a_tier_is_never_behind_the_next_one_whatever_the_steps(first, second, polled):
    for higher, lower in pairwise(TIERS):
        assert level(higher, first, Order.STRICT, steps=polled) <= level(lower, second, Order.STRICT, steps=polled)


@given(priorities, minutes, st.sampled_from(Order), steps)
def test_kombu_pushes_a_message_to_the_list_of_its_level_in_a_producer_of_the_same_steps(
    priority, estimate, order, polled
):
    channel = Channel.__new__(Channel)
    channel.priority_steps = polled
    found = level(priority, estimate, order, steps=polled)
    assert channel.priority(found) == found


@given(st.integers(0, 9), st.integers(0, 9), steps)
def test_a_waiting_message_moves_to_a_step_once_and_overtakes_none_of_a_higher_priority(first, second, polled):
    moved = readable(first, polled)
    assert moved in polled
    assert readable(moved, polled) == moved
    assert first not in polled or moved == first
    if first < second:
        assert moved <= readable(second, polled)


def test_a_waiting_message_of_high_priority_does_not_join_the_urgent_ones():
    assert [readable(n, DEFAULT_STEPS) for n in LEVELS] == [0, 3, 3, 3, 6, 6, 6, 9, 9, 9]
    assert readable(7, (0, 5)) == 5


@pytest.mark.parametrize(
    ("workers", "common"),
    [
        ([], LEVELS),
        ([range(10), (0, 3, 6, 9)], (0, 3, 6, 9)),
        ([(0, 3, 6, 9), (0, 5)], (0,)),
        ([(0, 3), (3, 1)], (3,)),
        ([(0, 3), (1, 4), (4, 1)], (1,)),  # no common step: the one that most workers poll
        ([()], LEVELS),
        ([range(20), (0, 12)], (0,)),
    ],
)
def test_common_steps_are_those_that_all_workers_of_a_lane_poll(workers, common):
    assert common_steps(workers) == common


@given(st.lists(steps, min_size=1))
def test_some_worker_polls_the_list_of_every_message(fleet):
    common = common_steps(fleet)
    assert common
    for wanted in LEVELS:
        assert any(readable(wanted, common) in polled for polled in fleet)


@given(st.lists(steps), steps)
def test_allowed_levels_narrow_the_steps_of_the_workers_unless_none_would_remain(fleet, allowed):
    common = common_steps(fleet, allowed)
    assert common == tuple(sorted(set(common)))
    if not fleet:
        assert common == allowed
    elif both := set.intersection(*map(set, fleet)):
        assert set(common) == (both & set(allowed) or both)


@given(priorities, minutes)
def test_the_tier_of_a_strict_level_is_the_priority_of_the_task(priority, estimate):
    assert priority_of_level(level(priority, estimate, Order.STRICT)) is priority


@given(st.integers())
def test_any_integer_level_has_a_tier(n):
    assert priority_of_level(n) in QueuePriority


@pytest.mark.parametrize("name", ["HIGH", "high", " High\n"])
def test_a_priority_is_parsed_in_any_case(name):
    assert parse_priority(name) is QueuePriority.HIGH


def test_an_unknown_priority_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match="unknown priority 'urgnt': use one of URGENT, HIGH, NORMAL, LOW, BATCH"):
        parse_priority("urgnt")
