from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_queue.core.histogram import (
    LARGEST_S,
    LAST_BUCKET,
    RELATIVE_ERROR,
    SMALLEST_S,
    Window,
    bucket,
    merge,
    quantile,
    seconds_of,
)

in_range = st.floats(SMALLEST_S, LARGEST_S)


def test_the_documented_error_is_at_most_ten_percent():
    assert RELATIVE_ERROR <= 0.10


@given(in_range)
def test_the_value_of_a_bucket_is_within_the_documented_error(seconds):
    assert seconds_of(bucket(seconds)) == pytest.approx(seconds, rel=RELATIVE_ERROR + 1e-9)


@given(st.lists(in_range, min_size=1), st.floats(0, 1))
def test_a_quantile_is_within_the_documented_error(durations, q):
    exact = sorted(durations)[max(1, ceil(q * len(durations))) - 1]
    assert quantile(Counter(map(bucket, durations)), q) == pytest.approx(exact, rel=RELATIVE_ERROR + 1e-9)


@given(st.floats(), st.floats())
def test_every_duration_has_a_bucket_and_longer_ones_never_a_lower_one(first, second):
    assert 0 <= bucket(first) <= LAST_BUCKET
    if first <= second:
        assert bucket(first) <= bucket(second)


@pytest.mark.parametrize(("seconds", "expected"), [(0, 0), (-5, 0), (float("nan"), 0), (0.0009, 0), (1e9, LAST_BUCKET)])
def test_a_duration_out_of_range_is_counted_in_the_first_or_last_bucket(seconds, expected):
    assert bucket(seconds) == expected


def test_a_quantile_of_no_counts_is_zero():
    assert quantile({}, 0.95) == 0.0
    assert quantile({0: 3}, 0.95) == 0.0


def test_windows_that_follow_one_another_add_up():
    first = Window(60, 3, 2, 1, 6.0, 30.0, waits={5: 3}, runs={50: 3})
    second = Window(60, 1, 0, 0, 2.0, 0.0, waits={5: 1, 7: 1}, runs={})
    assert merge([first, second]) == Window(120, 4, 2, 1, 8.0, 30.0, waits={5: 4, 7: 1}, runs={50: 3})
    assert merge([]) == Window()


def test_means_and_rates_of_a_window_follow_from_its_counts():
    window = Window(120, 6, 2, 2, 12.0, 40.0, waits={1: 4}, runs={2: 4})
    assert (window.mean_wait_seconds, window.mean_run_seconds, window.ended) == (3.0, 10.0, 4)
    assert window.per_minute(window.arrivals) == 3.0
    assert Window().mean_wait_seconds is None
    assert Window().per_minute(1) == 0.0
