"""IntelligentTaskClassifier: classify and route sources without submitting them, for asyncio services."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import (
    Classification,
    ContentType,
    Frozen,
    LoadBalancingDecision,
    QueuePriority,
    QueueType,
    Requires,
)
from morag_queue.core.routing.feasibility import Feasibility, Score
from morag_queue.core.routing.lane_readers import fallbacks
from morag_queue.errors import SourceError
from morag_queue.operations.submit import Submitter
from morag_queue.operations.submit_rows import PreparedTask, Row
from morag_queue.settings import load

from .registry import WorkerRegistry

_CAN_RUN = (Feasibility.FIT, Feasibility.FULL, Feasibility.SUSPECT)


class TaskClassification(Frozen):
    """The requirements of a task, the current routing decision, and the score of each worker, best first.

    `alternatives` are the other workers that can run it, best first. `fallback` are the queues to try next.
    """

    classification: Classification
    decision: LoadBalancingDecision
    options: dict[str, Any]
    lane: str
    level: int
    scores: tuple[Score, ...]
    alternatives: tuple[str, ...]
    fallback: tuple[QueueType, ...]

    @property
    def confidence(self) -> float:
        return self.decision.confidence


class IntelligentTaskClassifier:
    """Read sources and score workers, without submitting.

    The fleet is that of the registry, else that of the manager that uses this classifier, else that of the settings.
    """

    def __init__(self, worker_registry: WorkerRegistry | None = None, *, broker: RedisBroker | None = None) -> None:
        self._broker = broker
        if worker_registry is not None:
            self.use_broker(RedisBroker(worker_registry.settings, worker_registry.client))

    def use_broker(self, broker: RedisBroker) -> None:
        """Use this fleet, unless one is set."""
        self._broker = self._broker or broker

    async def classify_task(
        self,
        source: str,
        content_type: ContentType | str | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        priority: QueuePriority | str | None = None,
        requires: Requires | str | None = None,
    ) -> TaskClassification:
        """Classify a path or URL. The arguments override the facts read from the source. Raises SourceError."""
        given = {"content_type": content_type, "priority": priority, "requires": requires}
        fields = {name: value for name, value in given.items() if value}
        row = Row.model_validate({"source": source, "options": dict(options or {}), **fields})
        return await asyncio.to_thread(self._classify, row)

    def _classify(self, row: Row) -> TaskClassification:
        if self._broker is None:
            self.use_broker(RedisBroker(load({}, os.environ, Path.cwd()).settings))
        assert self._broker is not None
        settings = self._broker.settings
        prepared = next(Submitter(self._broker, settings).prepare([(0, row)], explain=True))
        if not isinstance(prepared, PreparedTask):
            raise SourceError(prepared.error, source=prepared.source)
        routed = prepared.routed
        return TaskClassification(
            classification=prepared.classification,
            decision=routed.decision,
            options=row.options,
            lane=routed.lane,
            level=routed.level,
            scores=routed.scores,
            alternatives=tuple(
                score.worker
                for score in routed.scores
                if score.verdict in _CAN_RUN and score.worker != routed.decision.worker_id
            ),
            fallback=fallbacks(routed.queue, settings.queues)[1:],
        )
