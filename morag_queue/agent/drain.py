"""Drain a worker: stop consuming, and return the messages in flight that have not started.

Such messages wait in a Celery worker for their ETA, for their rate limit, or for a process of the pool. They return to
the front of their shared lanes in their original order; an ETA stays in the message. Tasks that the pool has received
run to their end.

Everything here runs in the worker's event loop, so that no task can start meanwhile.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from celery.worker import state

from . import compat
from .unacked import ClaimQoS


def return_unstarted(consumer: Any, qos: ClaimQoS) -> int:
    """Return the messages that have not started; return their number."""
    requests = [*_rate_limited(consumer), *_scheduled(consumer), *_waiting_for_pool(consumer)]
    by_tag = {request._message.delivery_tag: request for request in requests}
    for request in by_tag.values():
        state.task_ready(request)
    return qos.give_back(by_tag)


def stop_consuming(consumer: Any, queues: Iterable[str]) -> None:
    """Cancel the consumers of a worker that uses kombu's BRPOP, which ignores cordons; the claim script checks them."""
    for queue in queues:
        if consumer.task_consumer.consuming_from(queue):
            consumer.cancel_task_queue(queue)


def resume_consuming(consumer: Any, queues: Iterable[str]) -> None:
    """Undo `stop_consuming`."""
    known = consumer.app.amqp.queues
    for queue in queues:
        if not consumer.task_consumer.consuming_from(queue):
            known.select_add(known[queue])
            consumer.add_task_queue(queue)


def _rate_limited(consumer: Any) -> Iterator[Any]:
    """Remove the requests from the rate limiter, and yield them."""
    for bucket in consumer.task_buckets.values():
        while bucket and bucket.contents:
            request, _ = bucket.pop()
            yield request


def _scheduled(consumer: Any) -> Iterator[Any]:
    """Cancel the timers of requests that wait for their ETA, and yield these requests."""
    for request, cancel in compat.scheduled(consumer.timer):
        cancel()
        consumer.qos.decrement_eventually()  # Celery raised the prefetch count for it
        yield request


def _waiting_for_pool(consumer: Any) -> Iterator[Any]:
    """Remove the requests that wait for the pool's semaphore or its thread executor, and yield them."""
    if (semaphore := consumer.controller.semaphore) is not None:
        waiters = list(semaphore._waiting)
        semaphore._waiting.clear()
        for callback, args, kwargs in waiters:
            if args and args[0] in state.reserved_requests:
                yield args[0]
            else:
                semaphore._waiting.append((callback, args, kwargs))
    for request in tuple(state.reserved_requests):
        future = getattr(getattr(request, "pool_result", None), "f", None)  # thread pools only
        if future is not None and request not in state.active_requests and future.cancel():
            yield request
