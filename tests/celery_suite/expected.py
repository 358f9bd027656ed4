"""What is known to differ between a stock worker and one with the agent, with the reasons."""

DIFFERENCES = {
    "test_inspect.py::test_Inspect::test_active_queues": (
        "expects the queue `celery` alone; the agent subscribes its worker to the shared queues of its capability and "
        "to the worker's own lanes too"
    ),
}
"""By the test's id."""

QUEUE_GUARD = "Integration session app must only use the shared celery queue"
"""Start of the message with which a fixture fails at the teardown of each test, for the reason of `test_active_queues`.

The fixture checks that no test leaves a queue in the app, which the worker shares. A failure of it alone, on the agent
side, does not count as the test's.
"""
