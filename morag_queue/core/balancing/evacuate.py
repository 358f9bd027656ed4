"""The mandatory rule: work in the lanes of dead and draining workers returns to the shared lanes."""

from morag_queue.core.plan import Declined, Step
from morag_queue.core.recovery.empty_lanes import empty_lanes

from .context import RuleContext, RuleResult

EVACUATE = "evacuation"


def evacuate(context: RuleContext) -> RuleResult:
    """Empty the lanes of dead and draining workers; it spends nothing of the budget."""
    parts: list[Step | Declined] = []
    for view, reason in context.capacity.leaving:
        parts += empty_lanes(
            context.snapshot, view.worker, context.readers, f"{EVACUATE}: {reason}", only=context.only, rule=EVACUATE
        )
    return RuleResult(
        steps=tuple(part for part in parts if not isinstance(part, Declined)),
        declined=tuple(part for part in parts if isinstance(part, Declined)),
    )
