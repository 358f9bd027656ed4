"""The table of faults: what each did to plain Celery and to a fleet with the agent, and whether the promise held."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .fault import Fault, Outcome

HEADER = ["", "fault", "plain Celery", "with morag-queue", "promise", "held"]
NOT_SHOWN = "–"


@dataclass(slots=True)
class Row:
    """A fault and its outcomes on both fleets."""

    fault: type[Fault]
    plain: list[Outcome] = field(default_factory=list)
    ours: list[Outcome] = field(default_factory=list)

    @property
    def is_held(self) -> bool:
        return bool(self.ours) and not any(outcome.broken for outcome in self.ours)

    def cells(self) -> list[str]:
        verdict = "yes" if self.is_held else "**NO**"
        return [str(self.fault.number), self.fault.name, cell(self.plain), cell(self.ours), self.fault.promise, verdict]


def cell(outcomes: Sequence[Outcome]) -> str:
    """The accounts added up: what ran of what was acknowledged, and each other word that is not 0; then the notes."""
    if not outcomes:
        return NOT_SHOWN
    total = sum((Counter(outcome.account.counts()) for outcome in outcomes), Counter[str]())
    ran = total["executed"] - total["recovered"] - total["unexpected"]
    parts = [f"{ran} of {total['acknowledged']} ran"]
    parts += [
        f"{total[word]} {shown}"
        for word, shown in (
            ("lost", "**lost**"), ("stuck", "**stuck**"), ("left", "left unrun"), ("duplicated", "ran twice"),
            ("recovered", "recovered"), ("unexpected", "**unexpected**"),
        )
        if total[word]
    ]  # fmt: skip
    notes = Counter(note for outcome in outcomes for note in outcome.notes)
    parts += [note if count == 1 else f"{note} ({count} times)" for note, count in notes.items()]
    return "; ".join(parts)


def markdown(rows: Sequence[Row]) -> str:
    """The table for the README, in the order of the numbers."""
    head, *body = [f"| {' | '.join(cells)} |\n" for cells in (HEADER, *(row.cells() for row in rows))]
    return "".join([head, f"|{'---|' * len(HEADER)}\n", *body])
