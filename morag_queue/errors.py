"""The errors that reach a user, each with its exit code. A message says what happened, to what, and what to do."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit codes of every command; part of the contract."""

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
    """Base: its arguments are the lines of the message, `exit_status` is what the command ends with.

    A line break inside an argument is somebody's text (a worker's name, say), and is shown as one.
    """

    exit_status = ExitStatus.FAILED

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(MoragQueueError):
    exit_status = ExitStatus.USAGE


class SettingsError(UsageError):
    """A setting is unknown or out of its range."""


class SourceError(MoragQueueError):
    """A path or URL that cannot be submitted. In bulk it is data: `source` says which one it speaks of."""

    def __init__(self, message: str, *, source: str = "") -> None:
        super().__init__(message)
        self.source = source


class Refused(MoragQueueError):
    """A safety check, or a plan that no longer fits; the message names the flag that overrides it."""

    exit_status = ExitStatus.REFUSED


class LeaseHeld(MoragQueueError):
    """Someone else leads the fleet; the message says who."""

    exit_status = ExitStatus.LEASE_HELD


class LeaseLost(MoragQueueError):
    """The caller led, and does not any more: it was away for longer than its lease, and what it wrote was refused."""

    exit_status = ExitStatus.LEASE_HELD

    def __init__(self) -> None:
        super().__init__("the lease was lost on the way: nothing more was changed; `morag-queue stats` shows who leads")


class NotFound(MoragQueueError):
    exit_status = ExitStatus.NOT_FOUND


class BrokerUnreachable(MoragQueueError):
    exit_status = ExitStatus.UNREACHABLE


class Interrupted(MoragQueueError):
    """The user ended it on the way; the message says what was done until then."""

    exit_status = ExitStatus.INTERRUPTED


class BrokerError(MoragQueueError):
    """The broker answered, but refused: out of memory, read-only, no permission, a key of the wrong type."""
