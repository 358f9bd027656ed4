"""IntelligentTaskClassifier on a real broker."""

import asyncio

import pytest
import redis
from celery import Celery

from morag_queue import IntelligentTaskClassifier, PriorityQueueManager, WorkerRegistry
from morag_queue.core.model import DecisionAction, QueueType, Requires, TaskComplexity
from morag_queue.settings import Settings

PAGE = "https://example.org/page.html"
TUBE = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
FILM = "https://example.org/film.mp4"


@pytest.fixture
def classifier(valkey):
    with redis.Redis.from_url(valkey) as client:
        yield IntelligentTaskClassifier(WorkerRegistry(client, Settings(redis_url=valkey)))


def test_a_classification_contains_the_requirements_of_the_task(classifier, sim_fleet):
    classification = asyncio.run(classifier.classify_task(TUBE)).classification
    assert (classification.requires, classification.estimated_minutes) == (Requires.GPU_PREFERRED, 5.0)
    assert classification.complexity is TaskComplexity.MEDIUM
    assert classification.memory_gb == 1.0


def test_the_best_worker_by_load_and_capability_is_chosen(classifier, sim_fleet):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.join("worker-gpu-1", "gpu", slots=2)
    sim_fleet.join("worker-hybrid-1", "hybrid", slots=2)
    classification = asyncio.run(classifier.classify_task(FILM))
    assert (classification.decision.action, classification.decision.worker_id) == (
        DecisionAction.ASSIGN,
        "worker-gpu-1",
    )
    assert classification.alternatives == ("worker-hybrid-1",)
    assert [score.worker for score in classification.scores][:2] == ["worker-gpu-1", "worker-hybrid-1"]
    assert classification.fallback == (QueueType.GPU_FALLBACK, QueueType.CPU_STANDARD, QueueType.CPU_BATCH)
    assert 0 < classification.confidence <= 1


def test_a_queue_without_workers_falls_back(classifier, sim_fleet):
    sim_fleet.join("worker-cpu-1")
    decision = asyncio.run(classifier.classify_task(TUBE)).decision
    assert decision.action is DecisionAction.FALLBACK
    assert (decision.source_queue, decision.target_queue) == (
        "gpu_fallback",
        "cpu_standard",
    )


def test_a_classifier_without_a_registry_uses_the_broker_of_its_manager(valkey, sim_fleet):
    app = Celery("service", broker=valkey, set_as_current=False)
    with redis.Redis.from_url(valkey) as client:
        classifier = IntelligentTaskClassifier()
        PriorityQueueManager(app, client, WorkerRegistry(client), classifier, settings=Settings(redis_url=valkey))
        sim_fleet.join("worker-cpu-1")
        assert asyncio.run(classifier.classify_task(PAGE)).decision.worker_id == "worker-cpu-1"
