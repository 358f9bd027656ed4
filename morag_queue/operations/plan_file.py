"""Plan files: one run writes the plan, another applies it. A plan of another fleet or version is refused."""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from morag_queue.core.lanes import queue_of
from morag_queue.core.plan import PLAN_VERSION, MoveLane, MoveTask, Plan
from morag_queue.errors import MoragQueueError, Refused

_LONGEST_REASON = 200
"""Characters: the reason may quote the file."""


def write(plan: Plan, path: Path) -> None:
    """Write the file atomically: a run that is killed leaves no partial plan."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(plan.model_dump_json(indent=2) + "\n", "utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MoragQueueError(f"cannot write the plan to {path}: {error.strerror}") from error


def read(path: Path, fleet: str, verb: str) -> Plan:
    """Read a plan. Raises Refused if the file is not a plan, or is for another version, verb or fleet."""
    try:
        fields = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise MoragQueueError(f"cannot read the plan {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path} is not a plan: {error}; write one with `morag-queue {verb} --plan FILE`") from error
    found: Any = fields.get("version") if isinstance(fields, dict) else None
    if found != PLAN_VERSION:
        raise Refused(
            f"{path} is a plan of version {str(found)[:40]}, this is version {PLAN_VERSION}: nothing was changed; "
            f"write a new one with `morag-queue {verb} --plan FILE`"
        )
    try:
        plan = Plan.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(
            f"{path} is not a plan: {where}: {first['msg'][:_LONGEST_REASON]}; nothing was changed"
        ) from error
    _check(plan, path, fleet, verb)
    return plan


def _check(plan: Plan, path: Path, fleet: str, verb: str) -> None:
    if plan.fleet != fleet:
        raise Refused(f"{path} is a plan for the fleet {plan.fleet}, this is {fleet}: nothing was changed")
    if plan.verb != verb:
        raise Refused(f"{path} is a plan of `{plan.verb}`: apply it with `morag-queue {plan.verb} --apply {path}`")
    for step in plan.steps:
        if not isinstance(step, MoveTask | MoveLane):
            raise Refused(f"{path} has a step {step.kind}, which {verb} never plans: nothing was changed")
        for lane in (step.source, step.target):
            if queue_of(lane) is None:
                raise Refused(f"{path} names {lane}, which is not a lane of this fleet: nothing was changed")
