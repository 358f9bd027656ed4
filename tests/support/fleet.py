"""A `Cluster` whose workers run `tests.support.app`, with helpers to send tasks and observe them."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from celery import Celery

from morag_queue.broker.keys import Keys
from morag_queue.local.cluster import Cluster
from morag_queue.local.waiting import until
from tests.faults.account import FaultAccount, account_of

from .commands import Command

APP = "tests.support.app"
FILE_TASK = "morag.worker.process_file_task"
_ROOT = Path(__file__).parents[2]


class Fleet(Cluster):
    """`conf` updates `app.conf` of every worker; `agent=False` starts agentless workers."""

    def __init__(
        self,
        *,
        conf: Mapping[str, Any] | None = None,
        agent: bool = True,
        env: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(env=env, **more)
        self.events_path = self.dir / "events.jsonl"
        self.env |= {
            "MORAG_LOCAL_EVENTS": str(self.events_path),
            "TEST_APP_CONF": json.dumps(conf or {}),
            "TEST_APP_AGENT": "1" if agent else "0",
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        self.keys = Keys()
        self._producer: Celery | None = None

    def start_worker(self, name: str, capability: str = "cpu", *, app: str = APP, **more: Any) -> Any:
        return super().start_worker(name, capability, app=app, **more)

    @property
    def producer(self) -> Celery:
        """A plain Celery app that only sends, like an application without morag-queue."""
        if self._producer is None:
            self._producer = Celery("producer", broker=self.url, set_as_current=False)
            self._producer.conf.broker_transport_options = {"priority_steps": list(range(10))}
        return self._producer

    def send(
        self, lane: str, *, task: str = FILE_TASK, level: int = 4, countdown: float | None = None, **options: Any
    ) -> str:
        """Send one task by plain Celery, without a ledger entry; return its id. `options`: see `tests.support.app`."""
        sent = self.producer.send_task(
            task,
            ("/dev/null", "document", options),
            queue=lane,
            priority=level,
            countdown=countdown,
            ignore_result=True,
        )
        return str(sent.id)

    def release_file(self, name: str = "release") -> Path:
        """A file for the task option `wait_for_file`; `touch()` releases the tasks."""
        return self.dir / name

    # -- commands

    def start_command(self, *args: str) -> Command:
        """Start `morag-queue *args` in the directory of the fleet."""
        return Command(args, {**self.env, **self.sandbox.environment}, self.dir)

    def run(self, *args: str, status: int = 0) -> Command:
        """Run `morag-queue *args`; assert the exit status."""
        return self.start_command(*args).expect(status)

    def run_json(self, *args: str, status: int = 0) -> Any:
        """Run `morag-queue *args --json`; return the decoded answer."""
        return self.run(*args, "--json", status=status).json

    # -- events

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the recorded events in order: those named `event` (start, end or fail), or all."""
        if not self.events_path.exists():
            return []
        text = self.events_path.read_text("utf-8")
        whole = text[: text.rfind("\n") + 1]  # without an incomplete last line
        return [one for one in map(json.loads, whole.splitlines()) if event in (None, one["event"])]

    def counts(self, event: str = "end") -> Counter[str]:
        """Count the events of that name by task id."""
        return Counter(one["task"] for one in self.events(event))

    def until_ran(self, task_ids: Iterable[str], seconds: float = 30) -> None:
        """Wait until all of them have ended at least once."""
        wanted = set(task_ids)
        until(
            lambda: wanted <= self.counts().keys(),
            seconds,
            lambda: f"did not end: {len(wanted - self.counts().keys())} of {len(wanted)} tasks; {self.where()}",
        )

    def account(self, attempted: Iterable[str], acknowledged: Iterable[str] | None = None) -> FaultAccount:
        """Return the account and print it, for pytest to show when a test fails."""
        sent = list(attempted)
        result = account_of(
            self.redis, self.keys, attempted=sent, acknowledged=sent if acknowledged is None else acknowledged,
            ended=self.counts("end").elements(),
        )  # fmt: skip
        print(f"account: {result}")
        return result

    def where(self) -> dict[str, Any]:
        """Return the sizes of each list, `unacked` and `held`, for failure messages."""
        lists = {key: self.redis.llen(key) for key in self.redis.scan_iter(count=1000, _type="list")}
        return {**lists, "unacked": self.redis.hlen(self.keys.unacked), "held": self.redis.hlen(self.keys.held)}

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None
        super().close()
