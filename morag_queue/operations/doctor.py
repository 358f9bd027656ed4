"""doctor: inspect the whole fleet without changing it."""

from importlib.metadata import version

from morag_queue.broker.inspection import inspect
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Finding, Severity, diagnose
from morag_queue.core.model import Frozen


class Diagnosis(Frozen):
    """The findings, errors first."""

    findings: tuple[Finding, ...]

    def has(self, severity: Severity) -> bool:
        return any(finding.severity is severity for finding in self.findings)


def doctor(broker: RedisBroker) -> Diagnosis:
    """Diagnose the fleet. Raises BrokerUnreachable."""
    return Diagnosis(findings=diagnose(inspect(broker, version("morag-queue"))))
