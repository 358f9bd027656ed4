"""doctor: looks at the whole fleet, changes nothing."""

from importlib.metadata import version

from morag_queue.broker.inspection import inspect
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.doctor import Finding, Severity, diagnose
from morag_queue.core.model import Frozen


class Diagnosis(Frozen):
    """What was found, the errors first."""

    findings: tuple[Finding, ...]

    def has(self, severity: Severity) -> bool:
        return any(one.severity is severity for one in self.findings)


def doctor(broker: RedisBroker) -> Diagnosis:
    """Everything that is not as it should be. Raises BrokerUnreachable."""
    return Diagnosis(findings=diagnose(inspect(broker, version("morag-queue"))))
