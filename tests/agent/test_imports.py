"""What the agent imports into the main process of a worker: each module costs every worker memory and start time."""

import os
import subprocess
import sys

import pytest

WORKER = """
import sys
from celery import Celery
from celery.signals import task_postrun
from celery.worker import state

app = Celery("app", broker=sys.argv[1], backend=sys.argv[1])
if sys.argv[2] == "agent":
    from morag_queue.agent import install
    install(app)

@app.task
def work():
    pass

@task_postrun.connect
def stop(**_):
    state.should_stop = 0

work.apply_async(queue="cpu_standard")
try:
    app.worker_main("worker -n worker-1@%h -P solo -Q cpu_standard --without-gossip --without-mingle".split())
finally:
    print("modules:", *sys.modules, file=sys.__stdout__)  # Celery redirects sys.stdout to its log
"""
ENV = {"MORAG_WORKER_TYPE": "cpu", "MORAG_QUEUE_AGENT__LOCATION": "rack 7", "MORAG_QUEUE_POLICY__MAX_RETRIES": "5"}


def modules(url: str, kind: str) -> set[str]:
    """Run a worker with settings of its own until it has run one task; return the modules of its process."""
    command = [sys.executable, "-c", WORKER, url, kind]
    run = subprocess.run(command, env=os.environ | ENV, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.partition("modules:")[2].split())


@pytest.mark.parametrize("start", ["first", "again"])
def test_the_agent_imports_itself_and_no_other_package(valkey, start):
    if start == "again":
        modules(valkey, "agent")  # leaves a registration, which the next worker reads
    added = modules(valkey, "agent") - modules(valkey, "plain")
    assert {name for name in added if not name.startswith("morag_queue")} <= {
        "importlib.readers",
        "importlib.resources._itertools",
        "importlib.resources.readers",
    }
    assert {name.split(".")[1] for name in added if "." in name and name.startswith("morag_queue")} == {
        "agent", "broker", "core", "errors", "settings",
    }  # fmt: skip
    assert "morag_queue.core.model" not in added, "the models need pydantic"
