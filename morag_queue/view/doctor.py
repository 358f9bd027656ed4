"""Findings for a person: each with what to do about it."""

from collections import Counter
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from morag_queue.core.doctor import Finding, Severity
from morag_queue.operations.doctor import Diagnosis

from .text import safe

SEVERITY_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_LONGEST = 500
_INDENT = 9


def diagnosis_view(diagnosis: Diagnosis) -> RenderableType:
    """The findings, and how many there are of each kind."""
    if not diagnosis.findings:
        return Text("Nothing is wrong.", style="green")
    counts = Counter(one.severity for one in diagnosis.findings)
    parts: list[RenderableType] = [one for finding in diagnosis.findings for one in _finding(finding)]
    words = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "hint"}
    told = [f"{counts[one]} {word}{'s' * (counts[one] != 1)}" for one, word in words.items() if counts[one]]
    return Group(*parts, Text(", ".join(told), style="bold"))


def _finding(finding: Finding) -> tuple[RenderableType, ...]:
    head = Text(f"{finding.severity:<{_INDENT}}", style=SEVERITY_STYLE[finding.severity])
    head.append(safe(finding.code), style="bold")
    head.append(f"  {safe(finding.subject, 80)}", style="dim")
    remedy = Text("→ ", style="green")
    remedy.append(safe(finding.remedy, _LONGEST))
    return head, Indented((Text(safe(finding.message, _LONGEST)), remedy)), Text()


@dataclass(frozen=True)
class Indented:
    """Paragraphs under a heading, with no blanks at the ends of their lines."""

    paragraphs: tuple[Text, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for paragraph in self.paragraphs:
            for line in paragraph.wrap(console, max(options.max_width - _INDENT, 20)):
                yield Text(" " * _INDENT).append_text(line)
