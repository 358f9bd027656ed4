"""`worker`: a Celery worker with the agent, for people who have no app yet."""

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

APP = "morag_queue.local.app"


@verb()
def command(
    ctx: CliContext,
    worker_type: Annotated[
        Capability | None,
        typer.Option("--type", case_sensitive=False, help="What it is; by looking for a GPU where not given."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="N", help="Its id in the fleet; worker-TYPE-HOST where not given.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", min=1, help="Tasks at once; one a core, one with a GPU.")
    ] = None,
    celery_options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- CELERY OPTIONS]", show_default=False, help="As celery worker takes."),
    ] = None,
) -> None:
    """Run a Celery worker that does light work on what `submit` sends: reads, counts, measures. Ctrl-C stops it.

    A worker of your own app needs one line instead: from morag_queue.agent import install; install(app)
    """
    ctx.broker.now()  # a broker that is not there is told at once; Celery would try for ever
    capability = _capability(worker_type, ctx.world.env)
    env = {**ctx.world.env, **_settings_as_environment(ctx.loaded), "MORAG_WORKER_TYPE": capability.value}
    node = name or f"worker-{capability.value}-{socket.gethostname()}"
    slots = concurrency or (1 if capability.has_gpu else os.cpu_count() or 1)
    argv = [
        *(sys.executable, "-m", "celery", "-A", APP, "worker", "-n", f"{node}@%h", "-c", str(slots)),
        *(["-l", "WARNING"] if ctx.quiet else ["-l", "INFO"]),
        *(celery_options or ()),
    ]
    # Celery takes the place of this process: signals, exit status and process list are its own.
    os.execve(sys.executable, argv, env)


def _capability(given: Capability | None, env: Mapping[str, str]) -> Capability:
    from morag_queue.agent.hardware import capability

    return capability(given.value if given else None, env)


def _settings_as_environment(loaded: "LoadedSettings") -> dict[str, str]:
    """What flags and --config said, for the worker's own look at its settings."""
    from morag_queue.settings.sources import DEFAULT, leaves, variable
    from morag_queue.view.output import plain

    values = {key: plain(value) for key, value in leaves(loaded.settings) if loaded.origins[key] != DEFAULT}
    return {
        variable(key): json.dumps(value) if isinstance(value, list | dict) else str(value)
        for key, value in values.items()
    }
