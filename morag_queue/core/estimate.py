"""Run time estimates: e = minutes × F(class, capability) × exp(m), where m is learned from measured runs.

`minutes` are at factor 1, as a classification gives them. m is kept per content type, class and "on a GPU". The
formula and its constants are those under which the scheduling policy was simulated.
"""

from dataclasses import dataclass
from math import exp, inf, log

from .enums import Capability, Requires

# (on a GPU, on a CPU): GPU-preferred work takes a fifth of its minutes on a GPU and twice its minutes on a CPU.
# GPU-only work cannot run on a CPU.
_FACTORS: dict[Requires, tuple[float, float]] = {
    Requires.GPU: (1.0, inf),
    Requires.GPU_PREFERRED: (0.2, 2.0),
    Requires.CPU: (1.0, 1.0),
}

_LOG_ERROR_MAX = 3.0  # one measurement counts as at most e³ = 20 times off
_RATE_MIN = 0.02  # lower bound of the learning rate: after thousands of runs m still follows a fleet that changes
_RATE_DELAY = 4  # the learning rate is 1 / (n + 4): the first measurement moves m by a fifth
_RUNS_LEARNED_MAX = 500  # after 500 equal steps at the lowest rate 0.98 ** 500 = 0.004 % of the old value is left
_FACTOR_MIN, _FACTOR_MAX = 0.1, 10.0


@dataclass(frozen=True)
class Correction:
    """The learned correction of one content type and class on one kind of worker: `n` runs, log factor `m`."""

    n: int = 0
    m: float = 0.0

    @property
    def factor(self) -> float:
        """exp(m), clamped to 0.1..10."""
        return min(max(exp(min(max(self.m, -_LOG_ERROR_MAX), _LOG_ERROR_MAX)), _FACTOR_MIN), _FACTOR_MAX)


def possible(requires: Requires, capability: Capability) -> bool:
    """Return whether a worker of this capability can run the task at all."""
    return requires is not Requires.GPU or capability.has_gpu


def estimate(minutes: float, requires: Requires, capability: Capability, correction: Correction | None = None) -> float:
    """Return the expected minutes on a worker of this capability; infinite where it is not `possible`."""
    factor = _FACTORS[requires][0 if capability.has_gpu else 1]
    if factor == inf:
        return inf
    return minutes * factor if correction is None else minutes * factor * correction.factor


def best_estimate(
    minutes: float, requires: Requires, on_gpu: Correction | None = None, on_cpu: Correction | None = None
) -> float:
    """Return the expected minutes on the fastest capability; never infinite for finite minutes."""
    return min(estimate(minutes, requires, Capability.GPU, on_gpu), estimate(minutes, requires, Capability.CPU, on_cpu))


def log_error(measured_minutes: float, predicted_minutes: float) -> float | None:
    """Return ln(measured ÷ predicted), clamped to ±3; None for a run without a duration or a prediction.

    Pass the estimate *without* its correction, otherwise m would converge to half of the error.
    """
    if not (0 < measured_minutes < inf and 0 < predicted_minutes < inf):
        return None
    return min(max(log(measured_minutes) - log(predicted_minutes), -_LOG_ERROR_MAX), _LOG_ERROR_MAX)


def learn(correction: Correction, measured_minutes: float, predicted_minutes: float) -> Correction:
    """Return the correction after one more successful run, see `log_error`."""
    error = log_error(measured_minutes, predicted_minutes)
    return correction if error is None else learn_many(correction, 1, error)


def learn_many(correction: Correction, runs: int, total_log_error: float) -> Correction:
    """Return the correction after `runs` more runs, each counted with their mean error; their order is ignored.

    At most `_RUNS_LEARNED_MAX` steps are computed: further equal errors would not change m any more.
    """
    if runs <= 0:
        return correction
    mean, m = total_log_error / runs, correction.m
    for n in range(correction.n + 1, correction.n + 1 + min(runs, _RUNS_LEARNED_MAX)):
        m += max(1 / (n + _RATE_DELAY), _RATE_MIN) * (mean - m)
    return Correction(n=correction.n + runs, m=m)
