"""IntelligentTaskClassifier: what a source needs and where it would go, for an asyncio service."""

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

_TAKES_IT = (Feasibility.FIT, Feasibility.FULL, Feasibility.SUSPECT)


class TaskClassification(Frozen):
    """What a task needs, the decision that would be made now, and how every worker scores, best first.

    `alternatives` are the others that could take it, best first; `fallback` the queues that it would go to next.
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
    """Reads sources and scores workers; it submits nothing.

    Its fleet is that of the registry; without one, of the manager that it is given to, else of the environment.
    """

    def __init__(self, worker_registry: WorkerRegistry | None = None, *, broker: RedisBroker | None = None) -> None:
        self._broker = broker
        if worker_registry is not None:
            self.belong_to(RedisBroker(worker_registry.settings, worker_registry.client))

    def belong_to(self, broker: RedisBroker) -> None:
        """Takes this fleet, where it has none yet."""
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
        """Of a path or a URL; what the caller says wins over what is read. Raises SourceError."""
        said = {"content_type": content_type, "priority": priority, "requires": requires}
        row = Row.model_validate(
            {"source": source, "options": dict(options or {}), **{key: one for key, one in said.items() if one}}
        )
        return await asyncio.to_thread(self._classify, row)

    def _classify(self, row: Row) -> TaskClassification:
        if self._broker is None:
            self.belong_to(RedisBroker(load({}, os.environ, Path.cwd()).settings))
        assert self._broker is not None
        settings = self._broker.settings
        found = next(Submitter(self._broker, settings).prepare([(0, row)], explain=True))
        if not isinstance(found, PreparedTask):
            raise SourceError(found.error, source=found.source)
        routed = found.routed
        return TaskClassification(
            classification=found.classification,
            decision=routed.decision,
            options=row.options,
            lane=routed.lane,
            level=routed.level,
            scores=routed.scores,
            alternatives=tuple(
                one.worker
                for one in routed.scores
                if one.verdict in _TAKES_IT and one.worker != routed.decision.worker_id
            ),
            fallback=fallbacks(routed.queue, settings.queues)[1:],
        )
