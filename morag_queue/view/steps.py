"""What a dry run would do, a line a step."""

from collections.abc import Sequence

from morag_queue.core.explain.decisions import describe_step
from morag_queue.core.plan import Step

from .text import safe

_SHOWN = 20


def step_lines(steps: Sequence[Step]) -> list[str]:
    """The first of them; --json has all."""
    lines = [f"  {safe(describe_step(step), 200)}" for step in steps[:_SHOWN]]
    return lines if len(steps) <= _SHOWN else [*lines, f"  … and {len(steps) - _SHOWN} more; --json lists them all"]
