"""doctor: inspect the whole fleet without changing it."""

from dataclasses import replace
from importlib.metadata import version

from morag_queue.broker.inspection import inspect
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Finding, Severity, diagnose
from morag_queue.core.model import Frozen

from .liveness import count_connections


class Diagnosis(Frozen):
    """The findings, errors first."""

    findings: tuple[Finding, ...]

    def has(self, severity: Severity) -> bool:
        return any(finding.severity is severity for finding in self.findings)


def doctor(broker: RedisBroker) -> Diagnosis:
    """Diagnose the fleet. Raises BrokerUnreachable."""
    facts = inspect(broker, version("morag-queue"))
    return Diagnosis(findings=diagnose(replace(facts, snapshot=count_connections(broker, facts.snapshot))))
