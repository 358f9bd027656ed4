"""What a draining worker gives back: messages that it holds and has not begun.

Three kinds of them wait in a Celery worker: for their time (an eta or a countdown), for their rate limit, and for a
process of the pool. All are given back to the shared lane of their queue, first in line and in their order, as if they
had just not been taken; an eta stays in the message. What the pool has been handed runs to its end here.

All of it runs in the worker's event loop, where none of the three can begin meanwhile.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from celery.worker import state

from .unacked import ClaimQoS


def hand_over(consumer: Any, qos: ClaimQoS) -> int:
    """Gives back what was not begun. Returns how many messages."""
    limited = list(_rate_limited(consumer))
    waiting = [*limited, *_waiting_for_their_time(consumer, limited), *_waiting_for_the_pool(consumer)]
    by_tag = {request._message.delivery_tag: request for request in waiting}
    for request in by_tag.values():
        state.task_ready(request)
    return qos.give_back(by_tag)


def stop_consuming(consumer: Any, queues: Iterable[str]) -> None:
    """For a worker that does not claim: kombu does not know of cordons."""
    for queue in queues:
        if consumer.task_consumer.consuming_from(queue):
            consumer.cancel_task_queue(queue)


def consume_again(consumer: Any, queues: Iterable[str]) -> None:
    """Undoes `stop_consuming`."""
    known = consumer.app.amqp.queues
    for queue in queues:
        if not consumer.task_consumer.consuming_from(queue):
            known.select_add(known[queue])
            consumer.add_task_queue(queue)


def _rate_limited(consumer: Any) -> Iterator[Any]:
    for bucket in consumer.task_buckets.values():
        while bucket and bucket.contents:
            request, _ = bucket.pop()
            yield request


def _waiting_for_their_time(consumer: Any, limited: Iterable[Any]) -> Iterator[Any]:
    # One whose time has come, but not its rate, is still called scheduled.
    elsewhere = {*map(id, limited), *map(id, state.reserved_requests), *map(id, state.active_requests)}
    for request in tuple(state.scheduled_requests):
        if id(request) not in elsewhere and request._eta_timer_entry is not None:
            consumer.timer.cancel(request._eta_timer_entry)
            consumer.qos.decrement_eventually()  # Celery made room for it
            yield request


def _waiting_for_the_pool(consumer: Any) -> Iterator[Any]:
    if (semaphore := consumer.controller.semaphore) is not None:
        waiters = list(semaphore._waiting)
        semaphore._waiting.clear()
        for callback, args, kwargs in waiters:
            if args and args[0] in state.reserved_requests:
                yield args[0]
            else:
                semaphore._waiting.append((callback, args, kwargs))
    for request in tuple(state.reserved_requests):
        future = getattr(getattr(request, "pool_result", None), "f", None)  # of a pool of threads
        if future is not None and request not in state.active_requests and future.cancel():
            yield request
