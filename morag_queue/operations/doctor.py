"""doctor: inspect the whole fleet without changing it."""

from dataclasses import replace
from importlib.metadata import version

from morag_queue.broker.inspection import inspect
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Finding, Severity, diagnose
from morag_queue.core.doctor.facts import FleetFacts
from morag_queue.core.doctor.leaving import LeavingFacts, findings_before_leaving
from morag_queue.core.model import Frozen

from .liveness import count_connections

_ARRIVALS_SECONDS = 3600.0
"""The time for which arrivals show that producers still send to the queues."""


class Diagnosis(Frozen):
    """The findings, errors first; before an uninstall, the first thing to do first.

    Keys of unknown names and the messages of the lanes are sampled: the numbers say how many of how many.
    """

    findings: tuple[Finding, ...]
    sampled_keys: int = 0
    total_keys: int = 0
    sampled_messages: int = 0
    waiting_messages: int = 0

    @classmethod
    def of(cls, findings: tuple[Finding, ...], facts: FleetFacts) -> "Diagnosis":
        return cls(
            findings=findings,
            sampled_keys=facts.keyspace.scanned,
            total_keys=facts.keyspace.total,
            sampled_messages=facts.sampled_messages,
            waiting_messages=sum(view.length for view in facts.snapshot.lanes),
        )

    def has(self, severity: Severity) -> bool:
        return any(finding.severity is severity for finding in self.findings)


def doctor(broker: RedisBroker) -> Diagnosis:
    """Diagnose the fleet. Raises BrokerUnreachable."""
    facts = _inspect(broker)
    return Diagnosis.of(diagnose(facts), facts)


def _inspect(broker: RedisBroker) -> FleetFacts:
    facts = inspect(broker, version("morag-queue"))
    return replace(facts, snapshot=count_connections(broker, facts.snapshot))


def leaving(broker: RedisBroker) -> Diagnosis:
    """Find what must be done before morag-queue is uninstalled. Raises BrokerUnreachable."""
    facts = _inspect(broker)
    with broker.translated():
        dead = [letter.task_id for letter in broker.dead.all()]
        cordoned = broker.broken.read(broker.keys.cordons, lambda: broker.cordons.all(facts.snapshot.taken_at), [])
    windows = broker.windows(facts.snapshot.taken_at, _ARRIVALS_SECONDS)
    more = LeavingFacts(
        facts, len(dead), tuple(sorted(cordoned)),
        tuple((queue, window.arrivals) for queue, window in windows.items()),
        f"{broker.keys.prefix}{broker.keys.namespace}:*",
    )  # fmt: skip
    return Diagnosis.of(findings_before_leaving(more), facts)
