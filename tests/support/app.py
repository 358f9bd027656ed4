"""The Celery app of the end-to-end tests: MoRAG's task names, with tasks that record their start and end.

Environment: MORAG_LOCAL_EVENTS is the file of recorded events; TEST_APP_CONF is JSON for `app.conf`;
TEST_APP_AGENT=0 leaves out the agent.
"""

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery, Task
from celery.app.task import Context

app = Celery("morag_worker", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(json.loads(os.environ.get("TEST_APP_CONF", "{}")))
if os.environ.get("TEST_APP_AGENT") != "0":
    from morag_queue.agent import install

    install(app)


def record_event(event: str, request: Context, **fields: Any) -> None:
    """Append one line of JSON to the events file."""
    line = {"event": event, "task": request.id, "worker": request.hostname, "at": time.time(), "pid": os.getpid()}
    line |= {"lane": request.delivery_info.get("routing_key"), "retries": request.retries, **fields}
    with open(os.environ["MORAG_LOCAL_EVENTS"], "a") as events:
        events.write(json.dumps(line) + "\n")


def work(request: Context, source: str, options: Mapping[str, Any] | None) -> str:
    """Options: `sleep` (seconds), `wait_for_file` (a path), `tag` (recorded), `fail` (the text of an exception)."""
    options = options or {}
    record_event("start", request, source=source, tag=options.get("tag"))
    time.sleep(float(options.get("sleep", 0)))
    while "wait_for_file" in options and not os.path.exists(options["wait_for_file"]):
        time.sleep(0.02)
    if options.get("fail"):
        record_event("fail", request, source=source, tag=options.get("tag"))
        raise RuntimeError(str(options["fail"]))
    record_event("end", request, source=source, tag=options.get("tag"))
    return source


@app.task(bind=True, name="morag.worker.process_file_task")
def process_file_task(
    self: Task, path: str, content_type: str | None = None, options: Mapping[str, Any] | None = None
) -> str:
    return work(self.request, path, options)


@app.task(bind=True, name="morag.worker.process_url_task")
def process_url_task(
    self: Task, url: str, content_type: str | None = None, options: Mapping[str, Any] | None = None
) -> str:
    return work(self.request, url, options)


@app.task(bind=True, name="morag.worker.process_web_page_task")
def process_web_page_task(self: Task, url: str, options: Mapping[str, Any] | None = None) -> str:
    return work(self.request, url, options)


@app.task(bind=True, name="morag.worker.process_youtube_video_task")
def process_youtube_video_task(self: Task, url: str, options: Mapping[str, Any] | None = None) -> str:
    return work(self.request, url, options)
