"""The Celery app of `morag-queue worker` and of the demo: MoRAG's four tasks, with the agent.

Settings come from the environment and the TOML file. If MORAG_LOCAL_EVENTS names a file, each start and end of a task
appends a line to it: one write costs less than a message and survives a broker crash.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from celery import Celery, Task

from morag_queue.agent import hardware, install
from morag_queue.settings import Settings, load

from .work import simulated_seconds, work_on


def _transport_options(settings: Settings) -> dict[str, Any]:
    broker = settings.broker
    options: dict[str, Any] = {"global_keyprefix": broker.global_keyprefix, "sep": broker.sep}
    if settings.redis_url.startswith("sentinel://"):
        options |= {"master_name": broker.master_name, "sentinel_kwargs": broker.sentinel_kwargs}
    return options


_settings = load({}, os.environ, Path.cwd()).settings
_capability = hardware.capability(None, os.environ)

app = Celery("morag_worker", broker=_settings.redis_url, backend=_settings.redis_url)
app.conf.update(
    result_expires=_settings.ledger.retention_seconds,
    broker_connection_retry_on_startup=True,
    broker_transport_options=_transport_options(_settings),
)
install(app)


def _note(event: str, task: Task) -> None:
    path = os.environ.get("MORAG_LOCAL_EVENTS")
    if not path:
        return
    worker, _, _ = task.request.hostname.partition("@")
    line = json.dumps({"event": event, "task": task.request.id, "worker": worker, "at": time.time()}) + "\n"
    with open(path, "a", encoding="utf-8") as notes:
        notes.write(line)


def _process(task: Task, source: str, content_type: str | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
    began = time.monotonic()
    _note("start", task)
    result, found = work_on(source, content_type)
    rest = simulated_seconds(options, found, _capability) - (time.monotonic() - began)
    if rest > 0:
        time.sleep(rest)
    _note("end", task)
    return {**result, "seconds": round(time.monotonic() - began, 3)}


def process_file_task(
    self: Task, path: str, content_type: str | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return _process(self, path, content_type, options)


def process_url_task(
    self: Task, url: str, content_type: str | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return _process(self, url, content_type, options)


def process_web_page_task(self: Task, url: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return _process(self, url, "web", options)


def process_youtube_video_task(self: Task, url: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return _process(self, url, "youtube", options)


for _name, _function in {
    _settings.tasks.file: process_file_task,
    _settings.tasks.url: process_url_task,
    _settings.tasks.web: process_web_page_task,
    _settings.tasks.youtube: process_youtube_video_task,
}.items():
    app.task(bind=True, name=_name)(_function)
