"""How long a task takes on a worker: e = minutes × F(class, capability) × exp(m), m learned from what is measured.

`minutes` are at factor 1, as a classification gives them. m is kept for each content type, class and "on a GPU".
"""

from math import exp, inf, log

from .model import Capability, Frozen, Requires

# (on a GPU, on a CPU). The starting point of the design: a GPU runs what prefers it at a fifth of the time, a CPU at
# twice the time; what needs a GPU never ends on a CPU.
_FACTORS: dict[Requires, tuple[float, float]] = {
    Requires.GPU: (1.0, inf),
    Requires.GPU_PREFERRED: (0.2, 2.0),
    Requires.CPU: (1.0, 1.0),
}

_SURPRISE_MAX = 3.0  # one measurement counts as at most e³, 20 times off
_STEP_MIN = 0.02  # so that it still follows a fleet that changes, after thousands of measurements
_STEP_DELAY = 4  # the first measurement moves m by a fifth
_LEARNED_AT_ONCE = 500  # 0.98 ** 500 of the old is left
_FACTOR_MIN, _FACTOR_MAX = 0.1, 10.0


class Correction(Frozen):
    """What was learned about one content type and class on one kind of worker."""

    n: int = 0
    m: float = 0.0

    @property
    def factor(self) -> float:
        """exp(m), kept between 0.1 and 10."""
        return min(max(exp(min(max(self.m, -_SURPRISE_MAX), _SURPRISE_MAX)), _FACTOR_MIN), _FACTOR_MAX)


def possible(requires: Requires, capability: Capability) -> bool:
    """Whether the task can run there at all."""
    return requires is not Requires.GPU or capability.has_gpu


def estimate(minutes: float, requires: Requires, capability: Capability, correction: Correction | None = None) -> float:
    """Expected minutes on a worker of this capability; infinite where it is not `possible`."""
    factor = _FACTORS[requires][0 if capability.has_gpu else 1]
    if factor == inf:
        return inf
    return minutes * factor if correction is None else minutes * factor * correction.factor


def best_estimate(
    minutes: float, requires: Requires, on_gpu: Correction | None = None, on_cpu: Correction | None = None
) -> float:
    """Expected minutes on the capability that suits the task best; never infinite for finite minutes."""
    return min(estimate(minutes, requires, Capability.GPU, on_gpu), estimate(minutes, requires, Capability.CPU, on_cpu))


def log_error(measured_minutes: float, predicted_minutes: float) -> float | None:
    """ln(measured ÷ predicted), kept between ±3; None for a run that took no time, or had no prediction.

    `predicted_minutes` is the estimate *without* a correction, otherwise what was learned would be counted against
    itself.
    """
    if not (0 < measured_minutes < inf and 0 < predicted_minutes < inf):
        return None
    return min(max(log(measured_minutes) - log(predicted_minutes), -_SURPRISE_MAX), _SURPRISE_MAX)


def learn(correction: Correction, measured_minutes: float, predicted_minutes: float) -> Correction:
    """The correction after one more run that succeeded, see `log_error`."""
    one = log_error(measured_minutes, predicted_minutes)
    return correction if one is None else learn_many(correction, 1, one)


def learn_many(correction: Correction, runs: int, total_surprise: float) -> Correction:
    """The correction after so many runs, as if each had surprised by their mean. In what order they came is forgotten.

    After some hundreds of equal surprises there is nothing more to learn from them.
    """
    if runs <= 0:
        return correction
    mean, m = total_surprise / runs, correction.m
    for n in range(correction.n + 1, correction.n + 1 + min(runs, _LEARNED_AT_ONCE)):
        m += max(1 / (n + _STEP_DELAY), _STEP_MIN) * (mean - m)
    return Correction(n=correction.n + runs, m=m)
