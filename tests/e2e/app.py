"""A task for each outcome, on the app of `tests.support.app`."""

import os
import signal
import time
from pathlib import Path

from celery.exceptions import Ignore, Reject

from tests.support.app import app, record_event


def wait_for_file(path):
    while not Path(path).exists():
        time.sleep(0.01)


@app.task(bind=True, name="t.hold")
def hold(self, path):
    """Run until the file exists."""
    record_event("start", self.request)
    wait_for_file(path)
    record_event("end", self.request)


@app.task(bind=True, name="t.nap")
def nap(self, seconds):
    record_event("start", self.request)
    time.sleep(seconds)
    record_event("end", self.request)


@app.task(bind=True, name="t.later")
def later(self, *args):
    record_event("start", self.request)
    record_event("end", self.request)


@app.task(bind=True, name="t.early", acks_late=False)
def early(self, path):
    record_event("start", self.request)
    wait_for_file(path)
    record_event("end", self.request)


@app.task(bind=True, name="t.retry", default_retry_delay=0)
def retry(self, times):
    record_event("start", self.request, priority=self.request.delivery_info["priority"])
    if self.request.retries < times:
        raise self.retry(countdown=0)
    record_event("end", self.request)


@app.task(bind=True, name="t.retry_after")
def retry_after(self, path):
    """Wait for the file, and retry once."""
    record_event("start", self.request)
    wait_for_file(path)
    if not self.request.retries:
        raise self.retry(countdown=0)
    record_event("end", self.request)


@app.task(bind=True, name="t.fail")
def fail(self):
    record_event("end", self.request)
    raise ValueError("on purpose")


@app.task(bind=True, name="t.early_fail", acks_late=False)
def early_fail(self):
    record_event("end", self.request)
    raise ValueError("on purpose")


@app.task(bind=True, name="t.early_reject", acks_late=False)
def early_reject(self):
    record_event("end", self.request)
    raise Reject("on purpose")


@app.task(bind=True, name="t.ignore")
def ignore(self):
    record_event("end", self.request)
    raise Ignore


@app.task(bind=True, name="t.reject")
def reject(self):
    record_event("end", self.request)
    raise Reject("on purpose")


@app.task(bind=True, name="t.requeue_once")
def requeue_once(self, marker):
    """Requeue the message the first time."""
    record_event("start", self.request)
    if not Path(marker).exists():
        Path(marker).touch()
        raise Reject("not now", requeue=True)
    record_event("end", self.request)


@app.task(bind=True, name="t.die_once")
def die_once(self, marker):
    """Kill the pool process the first time."""
    record_event("start", self.request)
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    record_event("end", self.request)


@app.task(bind=True, name="t.die")
def die(self):
    """Kill the pool process every time."""
    record_event("start", self.request)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, name="t.die_with_worker")
def die_with_worker(self, path):
    """Wait for the file, remove it, and kill the whole worker, as a container that runs out of memory."""
    record_event("start", self.request)
    wait_for_file(path)
    Path(path).unlink()
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, name="t.too_long", time_limit=1)
def too_long(self):
    record_event("start", self.request)
    time.sleep(60)


@app.task(bind=True, name="t.add", ignore_result=False)
def add(self, x, y):
    record_event("end", self.request)
    return x + y


@app.task(bind=True, name="t.total", ignore_result=False)
def total(self, numbers):
    record_event("end", self.request)
    return sum(numbers)
