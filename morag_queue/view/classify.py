"""A classification, the decision that follows from it, and how every worker scored."""

from collections.abc import Iterable, Sequence
from itertools import islice

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.model import Classification
from morag_queue.core.routing.feasibility import Feasibility, Score
from morag_queue.core.routing.types import Placement

from .columns import Column, Fitting
from .durations import format_minutes
from .text import cell, safe

_SCORES = 20


def classified_view(found: Iterable[tuple[Classification, Placement]]) -> RenderableType:
    """One block a source, in their order."""
    blocks: list[RenderableType] = []
    for classification, routed in found:
        if blocks:
            blocks.append(Text())
        blocks += _block(classification, routed)
    return Group(*blocks)


def _block(found: Classification, routed: Placement) -> Iterable[RenderableType]:
    decision = routed.decision
    needs = [found.requires.value, *(one.value for one in found.requirements if one.value != found.requires.value)]
    yield Text(safe(found.source, 400), style="bold")
    yield _line("type", f"{found.content_type.value}, {found.complexity.value} complexity")
    yield _line("needs", f"{', '.join(needs)}; {found.memory_gb:.1f} GB memory, {found.disk_gb:.1f} GB disk")
    yield _line("takes", f"{format_minutes(found.estimated_minutes)} (confidence {found.confidence:.0%})")
    yield _line("priority", found.priority.name)
    for reason in found.reasons:
        yield _line("because", reason)
    yield _line("goes to", f"{routed.lane}, level {routed.level}")
    yield _line(decision.action.value, f"{decision.reason} (confidence {decision.confidence:.0%})")
    if routed.scores:
        yield from (Text(), _scores(routed.scores))
    if len(routed.scores) > _SCORES:
        yield Text(f"… and {len(routed.scores) - _SCORES} more workers; --json lists them all", style="dim")


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"  {name:<9} ", "dim"), safe(text, 1000))


def _scores(scores: Sequence[Score]) -> Fitting:
    shown = list(islice(scores, _SCORES))
    style = {Feasibility.FIT: "green"}
    return Fitting(
        [
            Column("  WORKER", [cell(f"  {one.worker}", "", 200) for one in shown], least=16),
            Column("VERDICT", [cell(one.verdict.value, style.get(one.verdict, "yellow")) for one in shown]),
            Column("SCORE", [cell(f"{one.score:.2f}") for one in shown], right=True),
            Column("EXPECTED", [cell(format_minutes(one.expected_minutes)) for one in shown], right=True, rank=1),
        ]
    )
