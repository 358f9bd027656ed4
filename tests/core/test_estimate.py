"""Run time estimates, and the corrections learned from measured runs."""

from math import exp, inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_queue.core.estimate import Correction, best_estimate, estimate, learn, possible
from morag_queue.core.model import Capability, Requires

minutes = st.floats(0, 1e6)
corrections = st.builds(Correction, n=st.integers(0, 10**6), m=st.floats(-50, 50))


@pytest.mark.parametrize(
    ("requires", "capability", "expected"),
    [
        (Requires.GPU, Capability.GPU, 10),
        (Requires.GPU, Capability.HYBRID, 10),
        (Requires.GPU, Capability.CPU, inf),
        (Requires.GPU_PREFERRED, Capability.GPU, 2),
        (Requires.GPU_PREFERRED, Capability.HYBRID, 2),
        (Requires.GPU_PREFERRED, Capability.CPU, 20),
        (Requires.CPU, Capability.CPU, 10),
        (Requires.CPU, Capability.HYBRID, 10),
    ],
)
def test_the_estimate_is_the_minutes_times_the_factor_of_class_and_capability(
    requires: Requires, capability: Capability, expected: float
) -> None:
    assert estimate(10, requires, capability) == expected
    assert possible(requires, capability) == (expected < inf)


@given(minutes, corrections)
def test_gpu_only_work_is_impossible_on_a_cpu_whatever_the_correction(work: float, correction: Correction) -> None:
    assert estimate(work, Requires.GPU, Capability.CPU, correction) == inf


@given(minutes, st.sampled_from(Requires), corrections, corrections)
def test_the_best_estimate_is_finite_and_no_capability_is_faster(
    work: float, requires: Requires, on_gpu: Correction, on_cpu: Correction
) -> None:
    best = best_estimate(work, requires, on_gpu, on_cpu)
    assert 0 <= best < inf
    assert best <= estimate(work, requires, Capability.HYBRID, on_gpu)
    assert best <= estimate(work, requires, Capability.CPU, on_cpu)


def test_an_empty_correction_changes_no_estimate() -> None:
    assert estimate(3, Requires.CPU, Capability.CPU, Correction()) == 3


def test_runs_of_twice_the_prediction_double_the_estimate() -> None:
    correction = Correction()
    for _ in range(200):
        correction = learn(correction, measured_minutes=4, predicted_minutes=2)
    assert correction.n == 200
    assert estimate(2, Requires.CPU, Capability.CPU, correction) == pytest.approx(4, rel=0.01)


def test_the_first_measurement_moves_the_correction_by_a_fifth() -> None:
    assert learn(Correction(), 2, 1).m == pytest.approx(log(2) / 5)


def test_after_many_measurements_the_next_one_still_counts_two_percent() -> None:
    assert learn(Correction(n=100_000, m=0), exp(1), 1).m == pytest.approx(0.02)


@given(corrections, st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_one_measurement_counts_as_at_most_twenty_times_off(
    correction: Correction, measured: float, predicted: float
) -> None:
    start = Correction(n=correction.n, m=0)
    assert abs(learn(start, measured, predicted).m) <= 3 / 5 + 1e-9


@given(corrections)
def test_the_factor_of_a_correction_stays_between_a_tenth_and_ten(correction: Correction) -> None:
    assert 0.1 <= correction.factor <= 10


@pytest.mark.parametrize(("measured", "predicted"), [(0, 1), (1, 0), (-1, 1), (inf, 1), (1, inf), (float("nan"), 1)])
def test_a_run_without_duration_or_prediction_leaves_the_correction_unchanged(
    measured: float, predicted: float
) -> None:
    before = Correction(n=3, m=0.5)
    assert learn(before, measured, predicted) is before
