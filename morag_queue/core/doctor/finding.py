"""Findings of the doctor: what is wrong, with what, and what to do."""

from enum import StrEnum

from morag_queue.core.model import Frozen


class Severity(StrEnum):
    """`error`: work is lost or stuck now. `warning`: it will be after the next failure. `info`: nothing is at risk."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Code(StrEnum):
    """All kinds of findings. A code never changes its meaning: scripts rely on it."""

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
    BROKEN_VALUE = "BROKEN_VALUE"
    UNKNOWN_KEYS = "UNKNOWN_KEYS"
    SEPARATOR_DIFFERS = "SEPARATOR_DIFFERS"
    # lanes and messages
    QUEUE_WITHOUT_WORKER = "QUEUE_WITHOUT_WORKER"
    LANE_WITHOUT_WORKER = "LANE_WITHOUT_WORKER"
    MESSAGES_STRANDED = "MESSAGES_STRANDED"
    MESSAGES_UNSEEN = "MESSAGES_UNSEEN"
    PRIORITY_STEPS_DIFFER = "PRIORITY_STEPS_DIFFER"
    NO_PRIORITY = "NO_PRIORITY"
    FOREIGN_MESSAGES = "FOREIGN_MESSAGES"
    TASKS_STARVING = "TASKS_STARVING"
    UNOWNED_MESSAGES = "UNOWNED_MESSAGES"
    QUEUE_PAUSED = "QUEUE_PAUSED"
    GPU_QUEUE_READ_BY_CPU = "GPU_QUEUE_READ_BY_CPU"
    # workers
    WORKER_OUT_OF_SERVICE = "WORKER_OUT_OF_SERVICE"
    WORKER_STALLED = "WORKER_STALLED"
    WORKER_SUSPECT = "WORKER_SUSPECT"
    WORKER_STOPPED = "WORKER_STOPPED"
    WORKER_VANISHED = "WORKER_VANISHED"
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
    # before an uninstall
    WATCH_RUNS = "WATCH_RUNS"
    AGENT_RUNS = "AGENT_RUNS"
    WORKER_LANE_IN_USE = "WORKER_LANE_IN_USE"
    TASKS_HELD = "TASKS_HELD"
    LEVELS_IN_USE = "LEVELS_IN_USE"
    DEAD_LETTERS_KEPT = "DEAD_LETTERS_KEPT"
    PAUSE_IGNORED = "PAUSE_IGNORED"
    CORDON_IGNORED = "CORDON_IGNORED"
    QUEUES_IN_USE = "QUEUES_IN_USE"
    KEYS_REMAIN = "KEYS_REMAIN"


class Finding(Frozen):
    """One problem. `subject` is the worker, queue, key or part of the server that has it."""

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
