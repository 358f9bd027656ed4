"""The findings of `doctor`, each with its remedy."""

from collections import Counter
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from morag_queue.core.doctor import Finding, Severity
from morag_queue.core.words import count_of
from morag_queue.operations.doctor import Diagnosis

from .text import safe

SEVERITY_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_MAX_LENGTH = 500
_INDENT = 9


def diagnosis_view(diagnosis: Diagnosis, *, none: str) -> RenderableType:
    """Show the findings, then the count of each severity; `none` if there are no findings."""
    sampled = [Text(line, style="dim") for line in _sampled(diagnosis)]
    if not diagnosis.findings:
        return Group(Text(none, style="green"), *sampled)
    counts = Counter(finding.severity for finding in diagnosis.findings)
    parts = [part for finding in diagnosis.findings for part in _finding(finding)]
    nouns = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "hint"}
    summary = ", ".join(count_of(counts[severity], noun) for severity, noun in nouns.items() if counts[severity])
    return Group(*parts, Text(summary, style="bold"), *sampled)


def _sampled(diagnosis: Diagnosis) -> list[str]:
    """Say what was not checked whole."""
    sampled, waiting = diagnosis.sampled_messages, diagnosis.waiting_messages
    lines = [f"Sampled {sampled:,} of {waiting:,} waiting messages."] if sampled < waiting else []
    if diagnosis.sampled_keys < diagnosis.total_keys:
        keys = f"{diagnosis.sampled_keys:,} of {diagnosis.total_keys:,} keys"
        lines.append(f"Scanned {keys} for unknown ones; those with known names were all checked.")
    return lines


def _finding(finding: Finding) -> tuple[RenderableType, ...]:
    head = Text(f"{finding.severity:<{_INDENT}}", style=SEVERITY_STYLE[finding.severity])
    head.append(safe(finding.code), style="bold")
    head.append(f"  {safe(finding.subject, 80)}", style="dim")
    remedy = Text("→ ", style="green")
    remedy.append(safe(finding.remedy, _MAX_LENGTH))
    return head, Indented((Text(safe(finding.message, _MAX_LENGTH)), remedy)), Text()


@dataclass(frozen=True)
class Indented:
    """Paragraphs indented under a heading, without trailing blanks."""

    paragraphs: tuple[Text, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for paragraph in self.paragraphs:
            for line in paragraph.wrap(console, max(options.max_width - _INDENT, 20)):
                yield Text(" " * _INDENT).append_text(line)
