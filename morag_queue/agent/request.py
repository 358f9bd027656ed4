"""Says how each task ended before Celery acknowledges it, so that one script can write both.

Runs in the worker's main process (Celery calls these there), never in a pool's child.
"""

from time import monotonic
from typing import Any

from celery.exceptions import Ignore, InvalidTaskError, Retry
from celery.worker.request import Request as CeleryRequest

from .identity import FencedError, TaskOutcome
from .unacked import ClaimQoS

DELAYED_SECONDS = 1.0
"""A task that starts later than this after its receipt was delayed."""


class RequestMixin:
    """Put before a task's own Request class."""

    _already_cancelled: bool
    _already_revoked: bool
    _message: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
            self._check()
        except (InvalidTaskError, MemoryError):
            raise
        except Exception as error:
            # Celery rejects an invalid task. Any other error ends this worker, and the next one that gets the message.
            raise InvalidTaskError(f"{type(error).__name__}: {error}") from error
        self._received = self._started = monotonic()
        # Celery builds a subclass with methods of its own for each task: only the instance can come before them.
        self._celery_on_success = self.on_success  # type: ignore[has-type]
        self.on_success = self._on_success
        self._celery_execute = self.execute_using_pool  # type: ignore[has-type]
        self.execute_using_pool = self._execute

    def _check(self) -> None:
        """What Celery would stumble on later, when the pool is to begin with it."""
        for limit in self.time_limits:  # type: ignore[attr-defined]
            if not isinstance(limit, int | float | None):
                raise InvalidTaskError(f"no time limit: {limit!r}")
        for stamp in self.stamps:  # type: ignore[attr-defined]
            hash(stamp)

    # -- it runs

    def _execute(self, pool: Any, **kwargs: Any) -> Any:
        # A task with an ETA or a rate limit starts by a timer: the worker may have been fenced while it was paused.
        if (
            monotonic() - self._received > DELAYED_SECONDS
            and (qos := self._hands()) is not None
            and qos.channel.is_fenced()
        ):
            raise FencedError("fenced")
        # Kept, so that a draining worker can take it back from a pool that has not begun it.
        self.pool_result = self._celery_execute(pool, **kwargs)
        if hasattr(self.pool_result, "f"):  # a thread will begin with it, whatever becomes of the connection
            self._runs(True)
        return self.pool_result

    def on_accepted(self, pid: int, time_accepted: float) -> Any:
        self._started = monotonic()
        self._runs(True)
        return super().on_accepted(pid, time_accepted)  # type: ignore[misc]

    def _announce_cancelled(self, *args: Any, **kwargs: Any) -> Any:
        # The connection was lost and its process is being stopped: it is to run again.
        self._runs(False)
        return super()._announce_cancelled(*args, **kwargs)  # type: ignore[misc]

    # -- it ends

    def _on_success(self, failed__retval__runtime: tuple[Any, Any, float], **kwargs: Any) -> Any:
        failed, _, runtime = failed__retval__runtime
        if not failed:
            self._ends("completed", run_seconds=runtime)
        return self._then_finish(self._celery_on_success(failed__retval__runtime, **kwargs))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        error = exc_info.exception
        error = getattr(error, "exc", error) if type(error).__name__ == "ExceptionWithTraceback" else error
        if isinstance(error, Retry):
            self._ends("retry")
        elif isinstance(error, Ignore):
            self._ends("completed", run_seconds=self._ran())
        elif not self._already_cancelled:  # a message that is put back has not ended, see HandsQoS.reject
            self._ends("failed", run_seconds=self._ran(), error=f"{type(error).__name__}: {error}"[:500])
        return self._then_finish(super().on_failure(exc_info, send_failed_event, return_ok))  # type: ignore[misc]

    def _success_was_stored(self) -> Any:
        stored = super()._success_was_stored()  # type: ignore[misc]
        if stored:  # its process was lost, but after the work
            self._ends("completed", run_seconds=self._ran())
        return stored

    def _retry_worker_lost(self, exc: BaseException, exc_info: Any) -> bool:
        self._ends("retry")
        sent: bool = super()._retry_worker_lost(exc, exc_info)  # type: ignore[misc]
        if not sent:
            self._ends("failed", run_seconds=self._ran(), error=f"{type(exc).__name__}: {exc}"[:500])
        return sent

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if not soft:
            self._ends("failed", run_seconds=self._ran(), error=f"hard time limit of {timeout} s")
        return super().on_timeout(soft, timeout)  # type: ignore[misc]

    def _announce_revoked(self, reason: str, terminated: bool, signum: str, expired: bool) -> Any:
        self._ends("cancelled", error=reason)
        return self._then_finish(super()._announce_revoked(reason, terminated, signum, expired))  # type: ignore[misc]

    def _ran(self) -> float:
        return monotonic() - self._started

    # -- and the hands hear of it

    def _runs(self, running: bool) -> None:
        if (qos := self._hands()) is not None:
            qos.runs(self._tag(), running)

    def _ends(self, state: str, run_seconds: float | None = None, error: str = "") -> None:
        if (qos := self._hands()) is not None:
            qos.ends(self._tag(), TaskOutcome(state, run_seconds, self._started - self._received, error))

    def _then_finish(self, result: Any) -> Any:
        if (qos := self._hands()) is not None:
            qos.finish(self._tag())
        return result

    def _hands(self) -> ClaimQoS | None:
        """Also of a channel that is closed: the task has outlived its connection."""
        qos = getattr(self._message.channel, "qos", None)
        return qos if isinstance(qos, ClaimQoS) else None

    def _tag(self) -> str:
        tag: str = self._message.delivery_tag
        return tag


class Request(RequestMixin, CeleryRequest):
    """Celery's request with its ending told."""


def request_class_of(declared: Any) -> Any:
    """The Request class for a task that declares this one (a class, or its dotted name)."""
    from kombu.utils import symbol_by_name

    base = symbol_by_name(declared)
    if base is CeleryRequest:
        return Request
    return base if issubclass(base, RequestMixin) else type(base.__name__, (RequestMixin, base), {})
