"""Report the outcome of each task before Celery acknowledges its message, so that one script can write both.

Celery calls these methods in the main process of the worker, never in a child of the pool.
"""

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError
from time import monotonic
from typing import Any

import redis
from billiard.einfo import ExceptionInfo
from celery.exceptions import Ignore, InvalidTaskError, Reject, Retry, WorkerLostError
from celery.worker.request import Request as CeleryRequest

from .identity import FencedError, TaskOutcome
from .unacked import ClaimQoS

logger = logging.getLogger("morag_queue.agent")

DELAYED_SECONDS = 1.0
"""A task that starts later than this after its receipt was delayed."""

ERROR_CHARACTERS = 500
"""The longest error in the ledger."""


def described(error: BaseException) -> str:
    """The error in the ledger's form, `Name: text`; a long text is shortened in its middle.

    redis-py before 6 puts a whole command before the reason, by which the kind of the failure is recognised.
    """
    text = f"{type(error).__name__}: {error}"
    half = ERROR_CHARACTERS // 2 - 1
    return text if len(text) <= ERROR_CHARACTERS else f"{text[:half]}…{text[-half:]}"


class RequestMixin:
    """Extends the Request class of a task."""

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
            # Celery rejects an invalid task. Any other error would end each worker that takes the message.
            raise InvalidTaskError(f"{type(error).__name__}: {error}") from error
        self._received = self._started = monotonic()
        # Override on the instance: Celery builds a subclass for each task that overrides these methods again.
        self._celery_on_success = self.on_success  # type: ignore[has-type]
        self.on_success = self._on_success
        self._celery_execute = self.execute_using_pool  # type: ignore[has-type]
        self.execute_using_pool = self._execute

    def _check(self) -> None:
        """Raise now for a message on which Celery would fail later, outside the handling of invalid tasks."""
        for limit in self.time_limits:  # type: ignore[attr-defined]
            if not isinstance(limit, int | float | None):
                raise InvalidTaskError(f"invalid time limit: {limit!r}")
        for stamp in self.stamps:  # type: ignore[attr-defined]
            hash(stamp)

    # -- start

    def _execute(self, pool: Any, **kwargs: Any) -> Any:
        # A task with an ETA or a rate limit starts by a timer: the worker may have been fenced while it was paused.
        is_delayed = monotonic() - self._received > DELAYED_SECONDS
        if is_delayed and (qos := self._qos()) is not None and qos.channel.is_fenced():
            raise FencedError("fenced")
        # `drain` cancels it if a thread pool has not started it.
        try:
            self.pool_result = self._celery_execute(pool, **kwargs)
        except Exception:
            if self.time_start is None:  # type: ignore[attr-defined]
                raise  # for example, it was revoked
            self._on_pool_error()  # a solo pool has run it
            return None
        if hasattr(self.pool_result, "f"):
            self._set_running(True)  # a thread pool will start it even if the connection is lost
            self.pool_result.f.add_done_callback(self._on_thread_end)
        return self.pool_result

    def _on_thread_end(self, future: Any) -> None:
        try:
            future.result()
        except CancelledError:
            pass
        except Exception:  # noqa: BLE001
            self._on_pool_error()

    def _on_pool_error(self) -> None:
        """End a task whose result could not be stored: a pool without processes raises this error to nobody.

        Without an end the task would count as running as long as its worker lives, and run again when it dies.
        """
        self.on_failure(ExceptionInfo())

    def on_accepted(self, pid: int, time_accepted: float) -> Any:
        self._started = monotonic()
        self._set_running(True)
        return super().on_accepted(pid, time_accepted)  # type: ignore[misc]

    def cancel(self, pool: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super().cancel(pool, *args, **kwargs)  # type: ignore[misc]
        except NotImplementedError:
            pass  # a pool without processes: the task runs on
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:  # the result backend is down too
            logger.warning("the cancelled task %s is not in the result backend: %s", self.id, error)  # type: ignore[attr-defined]
        except Exception:  # Celery before 5.6 would exit
            logger.exception("cannot cancel a task after the connection was lost")

    def _announce_cancelled(self, *args: Any, **kwargs: Any) -> Any:
        # Celery stops its process because the connection was lost; the task will run again. Noted first: Celery fails
        # before it has noted that where the result backend refuses, and then takes the end of the process for a revoke.
        self._already_cancelled = True
        self._set_running(False)
        return super()._announce_cancelled(*args, **kwargs)  # type: ignore[misc]

    # -- end

    def _on_success(self, failed__retval__runtime: tuple[Any, Any, float], **kwargs: Any) -> Any:
        failed, _, runtime = failed__retval__runtime
        if not failed:
            self._set_outcome("completed", run_seconds=runtime)
        return self._finish(lambda: self._celery_on_success(failed__retval__runtime, **kwargs))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        error = exc_info.exception
        error = getattr(error, "exc", error) if type(error).__name__ == "ExceptionWithTraceback" else error
        if isinstance(error, Retry):
            self._set_outcome("retry")
        elif isinstance(error, Ignore):
            self._set_outcome("completed", run_seconds=self._run_seconds())
        elif isinstance(error, Reject) and error.requeue and not self.acknowledged:  # type: ignore[attr-defined]
            pass  # it has not ended
        elif not self._already_cancelled:  # a cancelled task is requeued, see ClaimQoS.reject
            self._set_outcome("failed", run_seconds=self._run_seconds(), error=described(error))
        report = super().on_failure  # type: ignore[misc]
        runs_again = isinstance(error, WorkerLostError) and self.task.reject_on_worker_lost  # type: ignore[attr-defined]
        return self._finish(lambda: report(exc_info, send_failed_event, return_ok), runs_again)

    def _success_was_stored(self) -> Any:
        stored = super()._success_was_stored()  # type: ignore[misc]
        if stored:  # its process died after the run
            self._set_outcome("completed", run_seconds=self._run_seconds())
        return stored

    def _retry_worker_lost(self, exc: BaseException, exc_info: Any) -> bool:
        self._set_outcome("retry")
        sent: bool = super()._retry_worker_lost(exc, exc_info)  # type: ignore[misc]
        if not sent:
            self._set_outcome("failed", run_seconds=self._run_seconds(), error=described(exc))
        return sent

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if not soft:
            self._set_outcome("failed", run_seconds=self._run_seconds(), error=f"hard time limit of {timeout} s")
        return super().on_timeout(soft, timeout)  # type: ignore[misc]

    def _announce_revoked(self, reason: str, terminated: bool, signum: str, expired: bool) -> Any:
        self._set_outcome("cancelled", error=reason)
        report = super()._announce_revoked  # type: ignore[misc]
        return self._finish(lambda: report(reason, terminated, signum, expired))

    def _run_seconds(self) -> float:
        return monotonic() - self._started

    # -- reports to the QoS, which keeps the messages in flight

    def _set_running(self, running: bool) -> None:
        if (qos := self._qos()) is not None:
            qos.runs(self._tag(), running)

    def _set_outcome(self, state: str, run_seconds: float | None = None, error: str = "") -> None:
        if (qos := self._qos()) is not None:
            qos.ends(self._tag(), TaskOutcome(state, run_seconds, self._started - self._received, error))

    def _finish(self, report: Callable[[], Any], runs_again: bool = False) -> Any:
        """Let Celery report the end. Where it cannot (the result backend refuses), the end is written all the same.

        `runs_again`: its process was lost, and the message goes back instead.
        """
        result, qos = None, self._qos()
        try:
            result = report()
        except MemoryError:
            raise
        except Exception as error:
            if qos is None:
                raise
            logger.error("Celery cannot report the end of %s: %s", self.id, described(error))  # type: ignore[attr-defined]
            qos.end_later(self._tag(), runs_again)
        if qos is not None:
            qos.finish(self._tag())
        return result

    def _qos(self) -> ClaimQoS | None:
        """The QoS of the channel of the message, also after the channel was closed: a task outlives its connection."""
        qos = getattr(self._message.channel, "qos", None)
        return qos if isinstance(qos, ClaimQoS) else None

    def _tag(self) -> str:
        tag: str = self._message.delivery_tag
        return tag


class KeepingRetry:
    """Task.retry that keeps the message where the retry cannot be published; Celery would end the task, unrun.

    The message goes back to its lane as it is, and the task runs again.
    """

    def __init__(self, retry: Callable[..., Any]) -> None:
        self._retry = retry

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._retry(*args, **kwargs)
        except Reject as error:  # raised only where publishing fails
            raise Reject(error.reason, requeue=True) from error


class Request(RequestMixin, CeleryRequest):
    """Celery's Request with reports of the outcome."""


def request_class_for(declared: Any) -> Any:
    """The declared Request class (a class or its dotted name), extended by `RequestMixin`."""
    from kombu.utils import symbol_by_name

    base = symbol_by_name(declared)
    if base is CeleryRequest:
        return Request
    return base if issubclass(base, RequestMixin) else type(base.__name__, (RequestMixin, base), {})
