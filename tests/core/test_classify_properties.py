"""Properties of classifications that hold for any facts and options."""

from dataclasses import fields
from math import isfinite
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from morag_queue.core.model import ContentType, Facts, QueuePriority, Requires, TaskComplexity
from morag_queue.core.policy import ContentPolicies
from morag_queue.core.routing.classify import OPTIONS, classify, profile

CONTENT = ContentPolicies()

counts = st.none() | st.integers()
kinds = st.none() | st.sampled_from(ContentType)
any_facts = st.builds(
    Facts,
    source=st.text(),
    is_url=st.booleans(),
    content_type=kinds,
    declared_type=kinds,
    mime=st.none() | st.text(),
    size_bytes=counts,
    duration_s=st.none() | st.floats(),
    width=counts,
    height=counts,
    pages=counts,
    characters=counts,
    problems=st.lists(st.text(), max_size=30).map(tuple),
)
option_names = st.sampled_from([name for spellings in OPTIONS.values() for name in spellings]) | st.text()
option_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
any_options = st.dictionaries(option_names, option_values, max_size=6)
complexities = list(TaskComplexity)


@given(any_facts, any_options, kinds, st.none() | st.sampled_from(QueuePriority), st.none() | st.floats())
def test_any_facts_and_options_give_finite_estimates_and_a_confidence(
    facts: Facts,
    options: dict[str, Any],
    declared: ContentType | None,
    priority: QueuePriority | None,
    minutes: float | None,
) -> None:
    result = classify(facts, options, CONTENT, declared=declared, priority=priority, estimated_minutes=minutes)
    assert 0 <= result.confidence <= 1
    for figure in (result.estimated_minutes, result.memory_gb, result.disk_gb):
        assert figure >= 0
        assert isfinite(figure)
    assert result.reasons
    assert result.source == facts.source
    assert priority is None or result.priority is priority
    assert declared is None or result.content_type is declared


@given(any_facts, any_options, kinds, st.none() | st.sampled_from(QueuePriority), st.none() | st.sampled_from(Requires))
def test_the_profile_of_a_task_is_what_routing_reads_of_its_classification(
    facts: Facts,
    options: dict[str, Any],
    declared: ContentType | None,
    priority: QueuePriority | None,
    requires: Requires | None,
) -> None:
    given = {"declared": declared, "priority": priority, "requires": requires}
    short, whole = profile(facts, options, CONTENT, **given), classify(facts, options, CONTENT, **given)
    for field in fields(short):
        assert getattr(short, field.name) == getattr(whole, field.name)


@given(any_facts, any_options)
def test_a_video_always_needs_a_gpu(facts: Facts, options: dict[str, Any]) -> None:
    video = facts.model_copy(update={"content_type": ContentType.VIDEO})
    assert classify(video, options, CONTENT).requires is Requires.GPU


@given(any_facts, any_options, st.sampled_from(ContentType), st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_longer_playing_time_never_lowers_the_estimate(
    facts: Facts, options: dict[str, Any], kind: ContentType, first: float, second: float
) -> None:
    _never_shorter(facts, options, kind, "duration_s", sorted((first, second)))


@given(any_facts, any_options, st.sampled_from(ContentType), st.integers(0), st.integers(0))
def test_more_pages_never_lower_the_estimate(
    facts: Facts, options: dict[str, Any], kind: ContentType, first: int, second: int
) -> None:
    _never_shorter(facts, options, kind, "pages", sorted((first, second)))


@given(any_facts, any_options, st.sampled_from(ContentType), st.integers(0), st.integers(0))
def test_a_larger_file_never_needs_less_memory_or_disk(
    facts: Facts, options: dict[str, Any], kind: ContentType, first: int, second: int
) -> None:
    small, large = sorted((first, second))
    less = classify(facts.model_copy(update={"size_bytes": small}), options, CONTENT, declared=kind)
    more = classify(facts.model_copy(update={"size_bytes": large}), options, CONTENT, declared=kind)
    assert less.memory_gb <= more.memory_gb
    assert less.disk_gb <= more.disk_gb


def _never_shorter(facts: Facts, options: dict[str, Any], kind: ContentType, field: str, values: list[Any]) -> None:
    less, more = (
        classify(facts.model_copy(update={field: value}), options, CONTENT, declared=kind) for value in values
    )
    assert less.estimated_minutes <= more.estimated_minutes
    assert complexities.index(less.complexity) <= complexities.index(more.complexity)
