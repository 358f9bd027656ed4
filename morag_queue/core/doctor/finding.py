"""What is wrong, to what, and what to do about it."""

from collections.abc import Iterable
from enum import StrEnum

from morag_queue.core.model import Frozen

_NAMED_AT_MOST = 3


class Severity(StrEnum):
    """`error`: work is lost, stuck or not done. `warning`: it will be, once something fails. `info`: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Code(StrEnum):
    """All that can be found. A code keeps its meaning: scripts rely on it."""

    # the server
    SERVER_TOO_OLD = "SERVER_TOO_OLD"
    SERVER_UNTESTED = "SERVER_UNTESTED"
    CLUSTER_MODE = "CLUSTER_MODE"
    READ_ONLY_REPLICA = "READ_ONLY_REPLICA"
    KEYS_CAN_BE_EVICTED = "KEYS_CAN_BE_EVICTED"
    MEMORY_LOW = "MEMORY_LOW"
    NO_APPEND_ONLY_FILE = "NO_APPEND_ONLY_FILE"
    SAVING_FAILS = "SAVING_FAILS"
    RIGHTS_MISSING = "RIGHTS_MISSING"
    CLOCK_SKEW = "CLOCK_SKEW"
    NOT_CHECKED = "NOT_CHECKED"
    # its keys
    WRONG_KEY_TYPE = "WRONG_KEY_TYPE"
    UNKNOWN_KEYS = "UNKNOWN_KEYS"
    SEPARATOR_DIFFERS = "SEPARATOR_DIFFERS"
    # lanes and messages
    QUEUE_WITHOUT_WORKER = "QUEUE_WITHOUT_WORKER"
    LANE_WITHOUT_WORKER = "LANE_WITHOUT_WORKER"
    MESSAGES_STRANDED = "MESSAGES_STRANDED"
    PRIORITY_STEPS_DIFFER = "PRIORITY_STEPS_DIFFER"
    NO_PRIORITY = "NO_PRIORITY"
    FOREIGN_MESSAGES = "FOREIGN_MESSAGES"
    TASKS_STARVING = "TASKS_STARVING"
    UNOWNED_MESSAGES = "UNOWNED_MESSAGES"
    # workers
    WORKER_STALLED = "WORKER_STALLED"
    WORKER_GONE_WITH_TASKS = "WORKER_GONE_WITH_TASKS"
    DUPLICATE_WORKER = "DUPLICATE_WORKER"
    WORKER_WITHOUT_AGENT = "WORKER_WITHOUT_AGENT"
    WORKERS_ELSEWHERE = "WORKERS_ELSEWHERE"
    OTHER_QUEUES = "OTHER_QUEUES"
    VERSION_DIFFERS = "VERSION_DIFFERS"
    NO_CLAIM = "NO_CLAIM"
    LEADER_MISSING = "LEADER_MISSING"
    # the workers' Celery settings
    VISIBILITY_TIMEOUT = "VISIBILITY_TIMEOUT"
    ACKS_EARLY = "ACKS_EARLY"
    DROPS_LOST_TASKS = "DROPS_LOST_TASKS"
    RUNS_ON_WITHOUT_CONNECTION = "RUNS_ON_WITHOUT_CONNECTION"
    TAKES_AHEAD = "TAKES_AHEAD"


class Finding(Frozen):
    """One thing that is not as it should be. `subject` is what it is about: a worker, a queue, a key, the server."""

    code: Code
    severity: Severity
    subject: str
    message: str
    remedy: str


def error(code: Code, subject: str, message: str, remedy: str) -> Finding:
    return Finding(code=code, severity=Severity.ERROR, subject=subject, message=message, remedy=remedy)


def warning(code: Code, subject: str, message: str, remedy: str) -> Finding:
    return Finding(code=code, severity=Severity.WARNING, subject=subject, message=message, remedy=remedy)


def info(code: Code, subject: str, message: str, remedy: str) -> Finding:
    return Finding(code=code, severity=Severity.INFO, subject=subject, message=message, remedy=remedy)


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    known = sorted(set(names))
    more = f" and {len(known) - _NAMED_AT_MOST} more" if len(known) > _NAMED_AT_MOST else ""
    return ", ".join(known[:_NAMED_AT_MOST]) + more


def count(number: int, one: str, many: str = "") -> str:
    """`1 message`, `2 messages`."""
    return f"{number} {one}" if number == 1 else f"{number} {many or one + 's'}"


def span(seconds: float) -> str:
    """About how long, for a sentence: `45 s`, `12 min`, `3 h`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
