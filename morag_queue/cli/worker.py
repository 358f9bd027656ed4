"""`worker`: run a Celery worker with the agent, for users without an app of their own."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.model import Capability

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from morag_queue.settings import LoadedSettings

_APP = "morag_queue.local.app"


@verb()
def worker(
    ctx: CliContext,
    worker_type: Annotated[
        Capability | None,
        typer.Option("--type", case_sensitive=False, help="Worker type; default: detect a GPU."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="Worker id; default: worker-TYPE-HOST.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", "-c", min=1, help="Parallel tasks; default: one per core, 1 with a GPU."),
    ] = None,
    celery_options: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- CELERY OPTIONS", show_default=False, help="Options for `celery worker`."),
    ] = None,
) -> None:
    """Run a Celery worker that reads and measures submitted files and URLs, until Ctrl-C.

    To run your own Celery app instead, add one line to it: from morag_queue.agent import install; install(app)
    """
    ctx.broker.now()  # fail at once if the broker is unreachable: Celery would retry forever
    capability = _capability(worker_type, ctx.environment.variables)
    variables = {
        **ctx.environment.variables,
        **_settings_as_variables(ctx.loaded),
        "MORAG_WORKER_TYPE": capability.value,
    }
    node = name or f"worker-{capability.value}-{socket.gethostname()}"
    slots = concurrency or (1 if capability.has_gpu else os.cpu_count() or 1)
    argv = [
        *(sys.executable, "-m", "celery", "-A", _APP, "worker", "-n", f"{node}@%h", "-c", str(slots)),
        *(["-l", "WARNING"] if ctx.quiet else ["-l", "INFO"]),
        *(celery_options or ()),
    ]
    # Celery replaces this process, so that signals and the exit status reach it directly.
    os.execve(sys.executable, argv, variables)


def _capability(worker_type: Capability | None, variables: Mapping[str, str]) -> Capability:
    from morag_queue.agent.hardware import capability

    return capability(worker_type.value if worker_type else None, variables)


def _settings_as_variables(loaded: "LoadedSettings") -> dict[str, str]:
    """Environment variables that pass settings from flags and files on to the worker."""
    from morag_queue.settings.locations import variable
    from morag_queue.settings.sources import DEFAULT, leaves
    from morag_queue.view.output import plain

    values = {key: plain(value) for key, value in leaves(loaded.settings) if loaded.origins[key] != DEFAULT}
    return {
        variable(key): json.dumps(value) if isinstance(value, list | dict) else str(value)
        for key, value in values.items()
    }
