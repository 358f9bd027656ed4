"""Diagnosis of a fleet: facts in, findings out. Each check is a pure function of the facts."""

from .facts import FleetFacts
from .finding import Code, Finding, Severity
from .gone import check_gone, check_watch
from .lanes import check_keys, check_messages, check_separators, check_steps, check_values
from .server import check_clocks, check_server, check_unread
from .service import check_service
from .stops import check_cordons, check_pauses
from .worker_settings import check_settings, check_visibility
from .workers import (
    check_agentless,
    check_agents,
    check_duplicates,
    check_foreign_agents,
    check_gpu_queues,
    check_unowned,
    check_unserved_queues,
)

__all__ = ["Code", "Finding", "FleetFacts", "Severity", "diagnose"]

_CHECKS = (
    check_server,
    check_keys,
    check_values,
    check_separators,
    check_steps,
    check_duplicates,
    check_agentless,
    check_agents,
    check_unserved_queues,
    check_gpu_queues,
    check_foreign_agents,
    check_settings,
    check_visibility,
    check_unowned,
    check_watch,
    check_pauses,
    check_cordons,
    check_gone,
    check_clocks,
    check_unread,
)
_WITHOUT_READER = (Code.QUEUE_WITHOUT_WORKER, Code.LANE_WITHOUT_WORKER)
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def diagnose(facts: FleetFacts) -> tuple[Finding, ...]:
    """Return all findings: errors, then warnings, then information, each in the order of the checks."""
    found = list(check_service(facts.snapshot, facts.policy, last_led_at=facts.last_led_at))
    served = {queue for worker in facts.agentless_workers for queue in worker.queues}
    # The samples describe foreign messages in more detail than the ends of the lanes do.
    found = [finding for finding in found if finding.code is not Code.FOREIGN_MESSAGES or not facts.samples]
    # These checks know the registered workers alone.
    found = [finding for finding in found if finding.code not in _WITHOUT_READER or finding.subject not in served]
    found += check_messages(facts)
    for check in _CHECKS:
        found += check(facts)
    return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.severity)))
