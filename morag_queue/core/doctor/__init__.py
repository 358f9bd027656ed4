"""What is wrong with a fleet: facts in, findings out. Each check is a function of the facts and nothing else."""

from .facts import Facts
from .finding import Code, Finding, Severity
from .lanes import check_keys, check_messages, check_separators, check_steps
from .server import check_clocks, check_server, check_unread
from .service import check_service
from .workers import check_kinds, check_names, check_places, check_settings, check_unowned, check_visibility

__all__ = ["Code", "Facts", "Finding", "Severity", "diagnose"]

_CHECKS = (
    check_server,
    check_keys,
    check_separators,
    check_steps,
    check_names,
    check_kinds,
    check_places,
    check_settings,
    check_visibility,
    check_unowned,
    check_clocks,
    check_unread,
)
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """All findings, the errors first; the order of the checks otherwise."""
    found = list(check_service(facts.snapshot, facts.policy, leader_expected=facts.leader_expected))
    # The samples tell more of foreign messages than the heads do.
    found = [one for one in found if one.code is not Code.FOREIGN_MESSAGES or not facts.samples]
    found += check_messages(facts)
    for check in _CHECKS:
        found += check(facts)
    return tuple(sorted(found, key=lambda one: _ORDER.index(one.severity)))
