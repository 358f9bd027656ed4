"""Classification: the expected needs of a task, from the facts about its source and its options.

Every number of the estimates is a setting (`policy.ContentPolicies`). An unknown fact never stops a classification: it
is replaced by the next best one, which lowers the confidence and is recorded in `reasons`.
"""

from collections.abc import Mapping
from typing import Any

from morag_queue.core.model import (
    Classification,
    ContentType,
    Facts,
    QueuePriority,
    Requires,
    ResourceRequirement,
    TaskComplexity,
)
from morag_queue.core.policy import ContentPolicies, ContentPolicy

from .types import TaskProfile

# Options that change the estimates, with their accepted spellings. Other options are passed to the task unread.
OPTIONS: dict[str, tuple[str, ...]] = {
    "diarization": ("diarization", "enable_diarization", "speaker_diarization", "diarize"),
    "segmentation": ("topic_segmentation", "enable_topic_segmentation", "segmentation", "enable_segmentation"),
    "thumbnails": ("thumbnails", "enable_thumbnails", "generate_thumbnails", "extract_thumbnails"),
    "docling": ("docling", "use_docling", "enable_docling"),
}
_SPELLINGS = {spelling: option for option, spellings in OPTIONS.items() for spelling in spellings}
_OFF = frozenset({"", "0", "false", "no", "off", "none", "null"})


# Factors of the confidence for unknown or uncertain facts. Rough judgements, not measurements.
_TYPE_UNKNOWN = 0.3
_TYPE_BY_NAME = 0.8
_LENGTH_BY_SIZE = 0.6
_LENGTH_UNKNOWN = 0.4
_PIXELS_UNKNOWN = 0.9
_SIZE_UNKNOWN = 0.9
_REMOTE = 0.7
_PROBLEM = 0.7

_BYTES_PER_MB = 1e6
_BYTES_PER_GB = 1e9
_MINUTES_MAX = 366 * 24 * 60.0  # a year: limit for what a broken header may claim
_COUNT_MAX = 1e12  # of pages, characters, seconds, bytes: keeps absurd facts finite


class _Reasons:
    """Collect the reasons and the confidence of one classification."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.confidence = 1.0

    def add(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def add_doubt(self, factor: float, sentence: str) -> None:
        """Add a reason that lowers the confidence."""
        self.sentences.append(sentence)
        self.confidence *= factor


def classify(
    facts: Facts,
    options: Mapping[str, Any],
    content: ContentPolicies,
    *,
    declared: ContentType | None = None,
    priority: QueuePriority | None = None,
    requires: Requires | None = None,
    estimated_minutes: float | None = None,
) -> Classification:
    """Classify a source. Keyword arguments of the caller override what the facts suggest.

    Never raises, whatever the facts and options; unknown options are ignored.
    """
    reasons = _Reasons()
    content_type, needed, minutes, memory = _needs(
        facts, options, content, reasons, declared, requires, estimated_minutes
    )
    disk = content.disk_factor * (_known(facts.size_bytes) or 0) / _BYTES_PER_GB
    complexity = _complexity(minutes, content)
    return Classification(
        source=facts.source,
        content_type=content_type,
        requires=needed,
        priority=_priority(needed, complexity) if priority is None else priority,
        complexity=complexity,
        requirements=_requirements(needed, content.of(content_type).light, memory, disk, content),
        estimated_minutes=minutes,
        memory_gb=memory,
        disk_gb=disk,
        confidence=reasons.confidence,
        reasons=tuple(reasons.sentences),
        facts=facts,
    )


def profile(
    facts: Facts,
    options: Mapping[str, Any],
    content: ContentPolicies,
    *,
    declared: ContentType | None = None,
    priority: QueuePriority | None = None,
    requires: Requires | None = None,
) -> TaskProfile:
    """Return what routing reads of `classify`. For a producer, whose every call would pay for the rest."""
    reasons = _Reasons()
    content_type, needed, minutes, memory = _needs(facts, options, content, reasons, declared, requires, None)
    if priority is None:
        priority = _priority(needed, _complexity(minutes, content))
    return TaskProfile(needed, priority, content_type, minutes, memory, reasons.confidence)


def _needs(
    facts: Facts,
    options: Mapping[str, Any],
    content: ContentPolicies,
    reasons: _Reasons,
    declared: ContentType | None,
    requires: Requires | None,
    estimated_minutes: float | None,
) -> tuple[ContentType, Requires, float, float]:
    """Return the content type, the hardware, the minutes at factor 1 and the memory in GB."""
    content_type = _content_type(facts, declared, reasons)
    row = content.of(content_type)
    minutes = _known(estimated_minutes)
    if minutes is None:
        minutes = _minutes(content_type, row, facts, content, reasons) * _options_factor(options, row, reasons)
    size = _known(facts.size_bytes)
    if size is None and not facts.is_url:
        reasons.add_doubt(_SIZE_UNKNOWN, "size unknown: the minimum of memory and disk is assumed")
    memory = row.memory_gb * (1 + min((size or 0) / _BYTES_PER_MB / content.memory_step_mb, content.memory_steps_max))
    for problem in facts.problems:
        reasons.add_doubt(_PROBLEM, problem)
    return content_type, row.requires if requires is None else requires, min(minutes, _MINUTES_MAX), memory


def _content_type(facts: Facts, declared: ContentType | None, reasons: _Reasons) -> ContentType:
    if declared is not None:
        reasons.add(f"{declared}: given by the caller")
        return declared
    if facts.content_type is not None:
        reasons.add(f"{facts.content_type}: by its content")
        return facts.content_type
    if facts.declared_type is None:
        reasons.add_doubt(_TYPE_UNKNOWN, "type unknown: a document is assumed; set it with --type")
        return ContentType.DOCUMENT
    if facts.is_url:
        reasons.add_doubt(_REMOTE, f"{facts.declared_type}: by its URL, which was not opened")
    else:
        reasons.add_doubt(_TYPE_BY_NAME, f"{facts.declared_type}: by its name only")
    return facts.declared_type


def _minutes(
    content_type: ContentType, row: ContentPolicy, facts: Facts, content: ContentPolicies, reasons: _Reasons
) -> float:
    """Return the minutes at factor 1 without options: a fixed part, plus parts by playing time and by page."""
    minutes = row.minutes
    if row.minutes_per_minute:
        minutes += row.minutes_per_minute * _playing_minutes(row, facts, reasons)
    if row.minutes_per_page:
        minutes += row.minutes_per_page * _pages(row, facts, content, reasons)
    if content_type is ContentType.VIDEO or content_type is ContentType.IMAGE:
        minutes *= _pixels_factor(content_type, row, facts, content, reasons)
    return minutes


def _playing_minutes(row: ContentPolicy, facts: Facts, reasons: _Reasons) -> float:
    seconds = _known(facts.duration_s)
    if seconds is not None:
        reasons.add(f"plays {seconds / 60:.1f} min")
        return seconds / 60
    return _length_by_size(facts, row.megabytes_per_minute, row.assumed_length, "playing time", "min", reasons)


def _pages(row: ContentPolicy, facts: Facts, content: ContentPolicies, reasons: _Reasons) -> float:
    """Return the declared page count or the pages that the text fills, whichever is larger: many writers declare 1."""
    pages, characters = _known(facts.pages), _known(facts.characters)
    if pages is None and characters is None:
        return _length_by_size(facts, row.megabytes_per_page, row.assumed_length, "pages", "pages", reasons)
    filled = (characters or 0.0) / content.characters_per_page
    length = max(pages or 0.0, filled, 1.0)
    reasons.add(f"{length:.0f} pages" if filled <= (pages or 0.0) else f"text of {length:.0f} pages")
    return length


def _length_by_size(
    facts: Facts, megabytes_per_unit: float, assumed: float, what: str, unit: str, reasons: _Reasons
) -> float:
    size = _known(facts.size_bytes)
    if size is None:
        reasons.add_doubt(_LENGTH_UNKNOWN, f"{what} unknown: {assumed:g} {unit} assumed")
        return assumed
    length = max(size / _BYTES_PER_MB / megabytes_per_unit, 1.0)
    reasons.add_doubt(_LENGTH_BY_SIZE, f"{what} unknown: {length:.0f} {unit} estimated from its size")
    return length


def _pixels_factor(
    content_type: ContentType, row: ContentPolicy, facts: Facts, content: ContentPolicies, reasons: _Reasons
) -> float:
    width, height = _known(facts.width), _known(facts.height)
    if not width or not height:
        reasons.add_doubt(_PIXELS_UNKNOWN, "resolution unknown")
        return 1.0
    if content_type is ContentType.VIDEO:
        # Compare the shorter side: an upright 1080 × 1920 video is no more work than 1920 × 1080.
        high = min(width, height) > content.high_resolution_lines
        factor = row.high_resolution_factor if high else 1.0
    else:
        megapixels = width * height / 1e6
        large = row.large_image_factor if megapixels > content.large_image_megapixels else 1.0
        factor = row.huge_image_factor if megapixels > content.huge_image_megapixels else large
    if factor != 1.0:
        reasons.add(f"{width:.0f} × {height:.0f} pixels: × {factor:g}")
    return factor


def _options_factor(options: Mapping[str, Any], row: ContentPolicy, reasons: _Reasons) -> float:
    factor = 1.0
    for option in effective_options(options):
        option_factor: float = getattr(row, f"{option}_factor")
        if option_factor != 1.0:
            reasons.add(f"{option}: × {option_factor:g}")
            factor *= option_factor
    return factor


def effective_options(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options that are on and change the estimates, by their canonical names."""
    if not options:
        return ()
    return tuple(dict.fromkeys(_SPELLINGS[key] for key, value in options.items() if key in _SPELLINGS and _on(value)))


def _on(value: Any) -> bool:
    """Return whether a value turns an option on. Values from the command line are text."""
    return value.strip().lower() not in _OFF if isinstance(value, str) else bool(value)


def _complexity(minutes: float, content: ContentPolicies) -> TaskComplexity:
    low, medium, high = content.complexity_minutes
    if minutes < low:
        return TaskComplexity.LOW
    if minutes < medium:
        return TaskComplexity.MEDIUM
    return TaskComplexity.HIGH if minutes < high else TaskComplexity.VERY_HIGH


def _priority(requires: Requires, complexity: TaskComplexity) -> QueuePriority:
    if requires is Requires.GPU:
        return QueuePriority.HIGH
    if requires is Requires.CPU and complexity is TaskComplexity.LOW:
        return QueuePriority.LOW
    return QueuePriority.NORMAL


def _requirements(
    requires: Requires, light: bool, memory_gb: float, disk_gb: float, content: ContentPolicies
) -> tuple[ResourceRequirement, ...]:
    if requires is Requires.GPU:
        needs = [ResourceRequirement.GPU_REQUIRED]
    elif requires is Requires.GPU_PREFERRED:
        needs = [ResourceRequirement.GPU_PREFERRED]
    else:
        needs = [ResourceRequirement.CPU_LIGHT if light else ResourceRequirement.CPU_INTENSIVE]
    if memory_gb > content.memory_intensive_gb:
        needs.append(ResourceRequirement.MEMORY_INTENSIVE)
    if disk_gb > content.disk_intensive_gb:
        needs.append(ResourceRequirement.DISK_INTENSIVE)
    return tuple(needs)


def _known(value: float | None) -> float | None:
    """Return the value as a finite number, None if it is impossible (negative, not a number) and so unknown."""
    if value is None or not value >= 0:
        return None
    return float(value) if value <= _COUNT_MAX else _COUNT_MAX
