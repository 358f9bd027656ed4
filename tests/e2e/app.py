"""Tasks that end in every way there is, on the app of `tests.support.app`."""

import os
import signal
import time
from pathlib import Path

from celery.exceptions import Ignore, Reject

from tests.support.app import app, note


def until_exists(path):
    while not Path(path).exists():
        time.sleep(0.01)


@app.task(bind=True, name="t.hold")
def hold(self, gate):
    """Runs until that file is there."""
    note("start", self.request)
    until_exists(gate)
    note("end", self.request)


@app.task(bind=True, name="t.nap")
def nap(self, seconds):
    note("start", self.request)
    time.sleep(seconds)
    note("end", self.request)


@app.task(bind=True, name="t.later")
def later(self, *args):
    note("start", self.request)
    note("end", self.request)


@app.task(bind=True, name="t.early", acks_late=False)
def early(self, gate):
    note("start", self.request)
    until_exists(gate)
    note("end", self.request)


@app.task(bind=True, name="t.retry", default_retry_delay=0)
def retry(self, times):
    note("start", self.request, priority=self.request.delivery_info["priority"])
    if self.request.retries < times:
        raise self.retry(countdown=0)
    note("end", self.request)


@app.task(bind=True, name="t.fail")
def fail(self):
    note("end", self.request)
    raise ValueError("on purpose")


@app.task(bind=True, name="t.early_fail", acks_late=False)
def early_fail(self):
    note("end", self.request)
    raise ValueError("on purpose")


@app.task(bind=True, name="t.early_reject", acks_late=False)
def early_reject(self):
    note("end", self.request)
    raise Reject("on purpose")


@app.task(bind=True, name="t.ignore")
def ignore(self):
    note("end", self.request)
    raise Ignore


@app.task(bind=True, name="t.reject")
def reject(self):
    note("end", self.request)
    raise Reject("on purpose")


@app.task(bind=True, name="t.requeue_once")
def requeue_once(self, marker):
    """Its message is put back the first time."""
    note("start", self.request)
    if not Path(marker).exists():
        Path(marker).touch()
        raise Reject("not now", requeue=True)
    note("end", self.request)


@app.task(bind=True, name="t.die_once")
def die_once(self, marker):
    """Its process of the pool is killed the first time."""
    note("start", self.request)
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    note("end", self.request)


@app.task(bind=True, name="t.too_long", time_limit=1)
def too_long(self):
    note("start", self.request)
    time.sleep(60)


@app.task(bind=True, name="t.add", ignore_result=False)
def add(self, x, y):
    note("end", self.request)
    return x + y


@app.task(bind=True, name="t.total", ignore_result=False)
def total(self, numbers):
    note("end", self.request)
    return sum(numbers)
