"""Faults at random on a whole fleet under load and two operators; then the account.

The same seed gives the same schedule. Logs, events and the history are kept if anything is wrong.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from threading import Thread

from morag_queue.local.account import stuck_tags
from tests.support.agent_fleet import AgentFleet

from .arena import CONF, ENV, Arena, remains
from .history import History
from .load import Load
from .schedule import OPERATORS, Step, schedule
from .verdict import Verdict, judge, unexpected_tracebacks

JOIN_SECONDS = 120.0
_SLOW_LOAD = {"explicit": "explicit", "command": "command"}
"""Kinds that are sent until they are acknowledged have threads of their own."""


def run(seed: int, seconds: float, say: Callable[[str], None] = print) -> Verdict:
    """Run one schedule and print its account."""
    steps = schedule(seed, seconds)
    digest = sha256("\n".join(map(str, steps)).encode()).hexdigest()[:12]
    say(f"seed {seed}, {seconds:g} s, {len(steps)} steps, schedule {digest}")
    with AgentFleet(persist=True, conf=CONF, env=ENV) as fleet:
        history = History(fleet.dir / "history.jsonl")
        (fleet.dir / "schedule.txt").write_text("\n".join(map(str, steps)) + "\n", "utf-8")
        verdict: Verdict | None = None
        try:
            _run(fleet, history, steps, seconds)
        except Exception as error:
            history.problem(f"the run itself failed: {error!r}")
            raise
        finally:
            verdict = _account(fleet, history)
            say(str(verdict))
            if not verdict.is_kept:
                kept = Path(tempfile.mkdtemp(prefix=f"nemesis-{seed}-"))
                shutil.copytree(fleet.dir, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "valkey"))
                for task in _bad_tasks(verdict):
                    say(_story(task, history, fleet))
                say(f"logs are in {kept}")
            history.close()
    return verdict


def _run(fleet: AgentFleet, history: History, steps: Sequence[Step], seconds: float) -> None:
    arena = Arena(fleet, history)
    load = Load(fleet, history, arena.run)
    try:
        began = time.monotonic()
        lines: dict[str, tuple[Callable[[Step], None], list[Step]]] = {
            "faults": (arena.inject, []),
            **{who: (arena.command, []) for who in OPERATORS},
            **{name: (load.send, []) for name in ("load", *_SLOW_LOAD)},
        }
        for step in steps:
            lines[_SLOW_LOAD.get(step.what, step.who)][1].append(step)
        threads = [
            Thread(target=_play, name=name, args=(*line, began, seconds, history), daemon=True)
            for name, line in lines.items()
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        next(thread for thread in threads if thread.name == "faults").join(JOIN_SECONDS)
        arena.quiet()
        for thread in threads:
            thread.join(JOIN_SECONDS)
            if thread.is_alive():
                history.problem(f"{thread.name} hangs")
        arena.settle()
    finally:
        history.note("remains", **remains(fleet.redis, fleet.keys))
        load.close()
        arena.close()


def _play(act: Callable[[Step], None], steps: Sequence[Step], began: float, seconds: float, history: History) -> None:
    """Take each step at its time, or as soon as the one before it is done; what ends a fault is always done."""
    for step in steps:
        time.sleep(max(0.0, began + step.at - time.monotonic()))
        if time.monotonic() > began + seconds + 1 and step.who != "faults":
            history.note("skipped", step=str(step))
            continue
        history.note("step", step=str(step))
        try:
            act(step)
        except Exception as error:  # noqa: BLE001 - told, and the run goes on
            history.problem(f"{step}: {error!r}")


def _account(fleet: AgentFleet, history: History) -> Verdict:
    client, keys = fleet.redis, fleet.keys
    records = {task: client.get(keys.task(task)) for task in history.attempted}
    states = {task: str(json.loads(text).get("state")) for task, text in records.items() if text}
    dead = {str(task): str(letter) for task, letter in client.hgetall(keys.dead).items()}
    return judge(
        history, fleet.events(), states=states, dead=dead,
        stuck=stuck_tags(client, keys), remains=remains(client, keys), tracebacks=unexpected_tracebacks(fleet.dir),
    )  # fmt: skip


def _bad_tasks(verdict: Verdict) -> list[str]:
    words = ("lost", "second starts without cause", "unexpected", "dead letters of good tasks")
    return [name.split(" ")[0] for word in words for name in verdict.bad.get(word, [])][:12]


def _story(task: str, history: History, fleet: AgentFleet) -> str:
    """Everything that is known of a task, in the order of time, with the faults that hit its workers."""
    events = [event for event in fleet.events() if event["task"] == task]
    workers = {str(event["worker"]).partition("@")[0] for event in events}
    lines = [(event["at"], f"{event['event']} on {event['worker']} pid {event['pid']}") for event in events]
    first = min([at for at, _ in lines], default=0.0)
    last = max([at for at, _ in lines], default=0.0)
    lines += [
        (send.began, f"sent, acknowledged: {send.is_acknowledged}") for send in history.sends if send.task == task
    ]
    lines += [
        (hit.began, f"  {hit.fault} {hit.worker or ''}") for hit in history.hits
        if hit.worker in (None, *workers) and first - 5 < hit.began < last + 2
    ]  # fmt: skip
    record, letter = fleet.redis.get(fleet.keys.task(task)), fleet.redis.hget(fleet.keys.dead, task)
    return "\n".join(
        [
            f"--- {task}",
            *(f"{at:.2f}  {text}" for at, text in sorted(lines)),
            f"record: {record!s}",
            f"dead letter: {letter!s}",
        ]
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.nemesis", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--seconds", type=float, default=600.0, metavar="S")
    parser.add_argument("--schedule", action="store_true", help="print the schedule, and run nothing")
    chosen = parser.parse_args(arguments)
    if chosen.schedule:
        print(*schedule(chosen.seed, chosen.seconds), sep="\n")
        return 0
    return 0 if run(chosen.seed, chosen.seconds, lambda text: print(text, flush=True)).is_kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
