"""Classification: starting estimates, multipliers, and the confidence lost by unknown facts."""

from dataclasses import replace
from typing import Any

import pytest

from morag_queue.core.model import (
    Classification,
    ContentType,
    Facts,
    QueuePriority,
    Requires,
    ResourceRequirement,
    TaskComplexity,
)
from morag_queue.core.policy import ContentPolicies
from morag_queue.core.routing.classify import classify

CONTENT = ContentPolicies()
MB, GB = 10**6, 10**9


def classify_as(
    content_type: str | None = None, *, options: dict[str, Any] | None = None, **facts: Any
) -> Classification:
    facts.setdefault("size_bytes", 0)
    kind = None if content_type is None else ContentType(content_type)
    return classify(Facts(source="/data/one", content_type=kind, **facts), options or {}, CONTENT)


@pytest.mark.parametrize(
    ("content_type", "facts", "options", "minutes"),
    [
        ("audio", {"duration_s": 600}, {}, 1.0),
        ("audio", {"duration_s": 600}, {"diarization": True}, 2.0),
        ("audio", {"duration_s": 600}, {"enable_diarization": "true", "enable_topic_segmentation": 1}, 3.0),
        ("audio", {"duration_s": 600}, {"diarization": "off", "topic_segmentation": False}, 1.0),
        ("audio", {"duration_s": 600}, {"diarization": True, "enable_diarization": True}, 2.0),
        ("audio", {"duration_s": 600}, {"thumbnails": True}, 1.0),
        ("video", {"duration_s": 600, "width": 1920, "height": 1080}, {}, 5.0),
        ("video", {"duration_s": 600, "width": 1080, "height": 1920}, {}, 5.0),
        ("video", {"duration_s": 600, "width": 3840, "height": 2160}, {}, 10.0),
        ("video", {"duration_s": 600, "width": 3840, "height": 2160}, {"generate_thumbnails": True}, 13.0),
        ("document", {"pages": 30}, {}, 3.0),
        ("document", {"pages": 30}, {"use_docling": "yes"}, 6.0),
        ("document", {"pages": 1, "characters": 60_000}, {}, 2.0),
        ("document", {"characters": 0}, {}, 0.1),
        ("image", {"width": 2000, "height": 1500}, {}, 0.5),
        ("image", {"width": 2001, "height": 1500}, {}, 1.0),
        ("image", {"width": 4001, "height": 3000}, {}, 2.0),
        ("web", {}, {}, 1.0),
        ("youtube", {}, {}, 5.0),
    ],
)
def test_the_minutes_follow_from_the_starting_estimates_and_multipliers(
    content_type: str, facts: dict[str, Any], options: dict[str, Any], minutes: float
) -> None:
    assert classify_as(content_type, options=options, **facts).estimated_minutes == pytest.approx(minutes)


@pytest.mark.parametrize(
    ("content_type", "requires", "requirement"),
    [
        ("audio", Requires.GPU_PREFERRED, ResourceRequirement.GPU_PREFERRED),
        ("image", Requires.GPU_PREFERRED, ResourceRequirement.GPU_PREFERRED),
        ("youtube", Requires.GPU_PREFERRED, ResourceRequirement.GPU_PREFERRED),
        ("video", Requires.GPU, ResourceRequirement.GPU_REQUIRED),
        ("document", Requires.CPU, ResourceRequirement.CPU_INTENSIVE),
        ("web", Requires.CPU, ResourceRequirement.CPU_LIGHT),
    ],
)
def test_each_content_type_has_its_default_requirements(
    content_type: str, requires: Requires, requirement: ResourceRequirement
) -> None:
    result = classify_as(content_type)
    assert result.requires is requires
    assert result.requirements == (requirement,)


@pytest.mark.parametrize(
    ("minutes", "complexity"),
    [
        (0.9, TaskComplexity.LOW),
        (1, TaskComplexity.MEDIUM),
        (9.9, TaskComplexity.MEDIUM),
        (10, TaskComplexity.HIGH),
        (59, TaskComplexity.HIGH),
        (60, TaskComplexity.VERY_HIGH),
    ],
)
def test_complexity_follows_the_minutes(minutes: float, complexity: TaskComplexity) -> None:
    assert classify_as("audio", duration_s=minutes * 600).complexity is complexity


@pytest.mark.parametrize(
    ("content_type", "size", "memory_gb", "disk_gb"),
    [
        ("audio", 0, 0.5, 0),
        ("audio", 100 * MB, 1.0, 0.3),
        ("video", 50 * MB, 3.0, 0.15),
        ("document", 500 * MB, 6.0, 1.5),
        ("document", 10 * GB, 6.0, 30.0),
        ("youtube", 0, 1.0, 0),
    ],
)
def test_memory_and_disk_grow_with_the_size(content_type: str, size: int, memory_gb: float, disk_gb: float) -> None:
    result = classify_as(content_type, size_bytes=size)
    assert result.memory_gb == pytest.approx(memory_gb)
    assert result.disk_gb == pytest.approx(disk_gb)


def test_a_huge_file_also_requires_memory_and_disk() -> None:
    assert classify_as("video", size_bytes=10 * GB, duration_s=60).requirements == (
        ResourceRequirement.GPU_REQUIRED,
        ResourceRequirement.MEMORY_INTENSIVE,
        ResourceRequirement.DISK_INTENSIVE,
    )


@pytest.mark.parametrize(
    ("content_type", "facts", "priority"),
    [
        ("video", {"duration_s": 1}, QueuePriority.HIGH),
        ("audio", {"duration_s": 1}, QueuePriority.NORMAL),
        ("document", {"pages": 1}, QueuePriority.LOW),
        ("document", {"pages": 100}, QueuePriority.NORMAL),
        ("web", {}, QueuePriority.NORMAL),
    ],
)
def test_the_default_priority_follows_from_requirements_and_complexity(
    content_type: str, facts: dict[str, Any], priority: QueuePriority
) -> None:
    assert classify_as(content_type, **facts).priority is priority


def test_values_given_by_the_caller_override_the_facts() -> None:
    facts = Facts(source="/a", content_type=ContentType.IMAGE, width=10, height=10, size_bytes=10)
    result = classify(
        facts,
        {},
        CONTENT,
        declared=ContentType.WEB,
        priority=QueuePriority.BATCH,
        requires=Requires.GPU,
        estimated_minutes=90,
    )
    assert (result.content_type, result.priority, result.requires) == (
        ContentType.WEB,
        QueuePriority.BATCH,
        Requires.GPU,
    )
    assert (result.estimated_minutes, result.complexity) == (90, TaskComplexity.VERY_HIGH)
    assert result.requirements == (ResourceRequirement.GPU_REQUIRED,)
    assert "web: given by the caller" in result.reasons


def test_the_confidence_is_1_if_all_facts_are_known() -> None:
    assert classify_as("audio", duration_s=60, size_bytes=MB).confidence == 1


@pytest.mark.parametrize(
    ("content_type", "facts", "reason"),
    [
        (None, {}, "type unknown: a document is assumed; set it with --type"),
        (None, {"declared_type": ContentType.AUDIO, "duration_s": 9}, "audio: by its name only"),
        (None, {"declared_type": ContentType.WEB, "is_url": True}, "web: by its URL, which was not opened"),
        ("audio", {"size_bytes": 30 * MB}, "playing time unknown: 30 min estimated from its size"),
        ("audio", {"size_bytes": None}, "playing time unknown: 10 min assumed"),
        ("document", {"size_bytes": 2 * MB}, "pages unknown: 20 pages estimated from its size"),
        ("video", {"duration_s": 60}, "resolution unknown"),
        ("image", {"width": 0, "height": 10}, "resolution unknown"),
        (
            "web",
            {"size_bytes": None},
            "size unknown: the minimum of memory and disk is assumed",
        ),
        ("audio", {"duration_s": 60, "problems": ("the end is cut off",)}, "the end is cut off"),
    ],
)
def test_an_unknown_fact_lowers_the_confidence_and_is_given_as_a_reason(
    content_type: str | None, facts: dict[str, Any], reason: str
) -> None:
    result = classify_as(content_type, **facts)
    assert reason in result.reasons
    assert result.confidence < 1


def test_each_further_problem_lowers_the_confidence() -> None:
    one = classify_as("web", problems=("a",))
    two = classify_as("web", problems=("a", "b"))
    assert two.confidence < one.confidence


def test_the_reasons_name_every_multiplier_of_the_minutes() -> None:
    result = classify_as("video", duration_s=60, width=3840, height=2160, options={"thumbnails": True})
    assert result.reasons == ("video: by its content", "plays 1.0 min", "3840 × 2160 pixels: × 2", "thumbnails: × 1.3")


def test_every_number_is_a_setting() -> None:
    audio = replace(CONTENT.audio, diarization_factor=7.0, minutes_per_minute=1.0)
    content = replace(CONTENT, audio=audio, complexity_minutes=(8.0, 9.0, 10.0))
    facts = Facts(source="/a", content_type=ContentType.AUDIO, duration_s=60)
    result = classify(facts, {"diarize": True}, content)
    assert result.estimated_minutes == 7
    assert result.complexity is TaskComplexity.LOW
