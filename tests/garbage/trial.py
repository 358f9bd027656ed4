"""A fleet to spoil, the verbs to run on it, and what is wrong with an answer."""

import io
import json
import re
import signal
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import typer

from morag_queue.agent.claim_request import ClaimLane, group_of
from morag_queue.cli import VERBS
from morag_queue.cli.context import Environment
from morag_queue.cli.run import build_group, run
from morag_queue.errors import ExitStatus
from tests.support.simulated_fleet import SimulatedFleet, connected

from .places import ARGUMENTS, Place, Spoil, places
from .values import MARK

WITHOUT_FLEET = {
    "demo",
    "worker",
    "acl",
    "simulate",
    "dashboard",
    "exit-codes",
    "completion",
    "config init",
    "config check",
    "config show",
}
"""Verbs that read no key of a running fleet."""

ANSWERS = {"stats", "tasks", "dead ls", "journal ls", "classify"}
"""Verbs that answer whatever the garbage; others may find that their task, worker or entry does not exist."""

CHANGING_FLAGS = ("--yes", "--reason", "garbage")

TAKES = {
    "submit": [["https://example.org/a.html", "--id", "new"], ["https://example.org/a.html", "--worker", "cpu-1"]],
    "classify": [["https://example.org/a.html"]],
    "rebalance": [["--explain"]],
    "drain": [["cpu-2", "--deadline", "1s", "--allow-last", "--allow-pinned"]],
    "failover": [["--dead"], ["gone"], ["gone", "--force"]],
    "stats": [[], ["--live", "--count", "1"]],
    "tasks": [[], ["--state", "completed"], ["--state", "failed"], ["--limit", "0", "--lines"], ["--submission", "s"]],
    "task show": [["waits"], ["runs"], ["completed"], ["dead"]],
    "task why": [["waits"], ["runs"], ["completed"], ["dead"]],
    "task cancel": [["waits"], ["--priority", "NORMAL"]],
    "task move": [["waits", "--to-worker", "cpu-1"], ["--queue", "cpu_standard", "--to-queue", "cpu_batch"]],
    "task prio": [["waits", "HIGH"], ["--queue", "cpu_standard", "LOW"]],
    "task retry": [["completed"], ["dead"]],
    "dead requeue": [["dead"], ["--all"]],
    "dead drop": [["dead"]],
    "dead show": [["dead"]],
    "watch": [["--once"]],
    "cordon": [["cpu-1"]],
    "uncordon": [["cordoned"]],
    "doctor": [[], ["--leaving"]],
    "acl": [["viewer"]],
}
"""Arguments by verb; others are given by the metavars of what they require."""

BY_METAVAR = {"W": "cpu-1", "Q": "cpu_standard", "ID": "waits", "ENTRY": "ENTRY"}


def every_verb() -> Iterator[tuple[str, list[list[str]]]]:
    """Yield each verb that reads the fleet, with the arguments to try."""
    for name, verb in build_group(VERBS).commands.items():
        loaded = verb.load()
        commands = {f"{name} {one}": command for one, command in loaded.commands.items()} if isinstance(
            loaded, typer.core.TyperGroup
        ) else {name: loaded}  # fmt: skip
        for words, command in commands.items():
            takes_url = any("--redis-url" in one.opts for one in command.params)
            if takes_url and words not in WITHOUT_FLEET:
                required = [one.metavar for one in command.params if one.param_type_name == "argument" and one.required]
                yield words, TAKES[words] if words in TAKES else [[BY_METAVAR[str(one)] for one in required]]


def changes(words: str) -> bool:
    """Whether the verb takes --yes."""
    group = build_group(VERBS).commands
    name, _, subcommand = words.partition(" ")
    command = group[name].load()
    command = command.commands[subcommand] if subcommand else command
    return any("--yes" in one.opts for one in command.params)


class Hung(BaseException):
    """A verb did not end in time."""


@dataclass(frozen=True)
class Answer:
    words: tuple[str, ...]
    status: int
    out: str
    err: str
    seconds: float = 0.0
    hung_in: str = ""

    def complaints(self, *, must_answer: bool) -> list[str]:
        """What is wrong with the answer, whatever the garbage."""
        found = [f"did not end, in {self.hung_in}"] if self.hung_in else []
        if self.status not in set(ExitStatus):
            found.append(f"exit status {self.status} is none of the contract")
        if "unexpected" in self.err or "Traceback" in self.err + self.out:
            found.append("unexpected error")
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202e\ud800-\udfff]", self.out + self.err):
            found.append("unprintable characters")
        if len(self.out) + len(self.err) > 1_000_000:
            found.append(f"{len(self.out) + len(self.err)} characters of output")
        if "--json" in self.words and "--lines" not in self.words and "watch" not in self.words:
            try:
                json.loads(self.out)
            except ValueError:
                found.append("no JSON document")
        if must_answer and self.status != 0:
            found.append("no answer")
        if self.status and not self.err + self.out:
            found.append("no message")
        return [f"{' '.join(self.words)}: exit {self.status}: {one}: {self.err[-300:]!r}" for one in found]


def run_verb(url: str, words: Iterable[str], directory: Path, seconds: int = 60) -> Answer:
    """Run a verb in this process."""
    given = tuple(words)
    out, err = io.StringIO(), io.StringIO()
    variables = {"HOME": str(directory), "REDIS_URL": url, "USER": "ann"}
    environment = Environment(io.StringIO(""), out, err, variables, directory)
    hung: list[str] = []

    def on_alarm(_: int, frame: FrameType | None) -> None:
        hung.extend(traceback.format_stack(frame)[-4:])
        raise Hung

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    started = time.monotonic()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = run(VERBS, list(given), environment)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    return Answer(given, status, out.getvalue(), err.getvalue(), time.monotonic() - started, "".join(hung))


@dataclass
class Spoiled:
    """A fleet with tasks in every state. `restore` makes it as it was."""

    fleet: SimulatedFleet
    dumps: Mapping[bytes, tuple[int, bytes]]
    entry: str

    @property
    def places(self) -> list[Place]:
        now = self.fleet.broker.now()
        lanes = [ClaimLane(queue, queue, is_own=False) for queue in ("cpu_standard", "cpu_batch")]
        present = {"group": group_of(lanes), "part": f"completed:{int(now // 60)}", "at": now}
        return list(places(self.fleet.keys, ARGUMENTS | present))

    def restore(self) -> None:
        """Make the fleet as it was, with new heartbeats."""
        client, keys = self.fleet.client, self.fleet.keys
        pipe = client.pipeline()
        pipe.flushall()
        for key, (milliseconds, dump) in self.dumps.items():
            pipe.restore(key, milliseconds, dump)  # type: ignore[no-untyped-call]
        pipe.hgetall(keys.beats)
        pipe.time()
        *_, beats, (now, _) = pipe.execute()
        for worker, text in beats.items():
            client.hset(keys.beats, worker, json.dumps(json.loads(text) | {"at": now}))

    def words(self, verb: str, arguments: Iterable[str]) -> list[str]:
        flags = CHANGING_FLAGS if changes(verb) else ()
        return [*verb.split(), *(self.entry if one == "ENTRY" else one for one in arguments), *flags]

    def task_ids(self) -> set[str]:
        """The ids of all tasks that have a message in a lane, in `unacked` or in `dead`."""
        client, found = self.fleet.client, set()
        for key in client.scan_iter("*"):
            texts: list[bytes] = []
            kind = client.type(key)
            if kind == b"list" and not key.startswith(b"mq:"):
                texts = client.lrange(key, 0, -1)  # type: ignore[assignment]
            elif kind == b"hash" and key in (b"unacked", b"mq:dead"):
                texts = list(client.hvals(key))  # type: ignore[arg-type]
            for text in texts:
                found |= set(re.findall(rb'\\*"id\\*": *\\*"([a-z0-9-]+)\\*"', text[:10_000]))
        return {one.decode() for one in found}


@contextmanager
def make_spoiled(url: str) -> Iterator[Spoiled]:
    """Make the fleet on an empty database: live, cordoned and dead workers, and tasks in every state."""
    fleet = SimulatedFleet(url)
    with ExitStack() as stack:
        stack.callback(fleet.client.close)
        for name, kind in {"cpu-1": "cpu", "cpu-2": "cpu", "gpu-1": "gpu", "cordoned": "cpu", "gone": "cpu"}.items():
            fleet.join(name, kind, client_name=f"mq.{name}", slots=2)
            if name != "gone":
                stack.enter_context(connected(url, f"mq.{name}"))
        yield from _filled(fleet, url)


def _filled(fleet: SimulatedFleet, url: str) -> Iterator[Spoiled]:
    fleet.submit("completed", "dead", "lost", "runs")
    while (claimed := fleet.claim("gone" if fleet.broker.observe()[0].held else "cpu-1")) is not None:
        if claimed == "completed":
            fleet.end(claimed)
        elif claimed == "dead":
            fleet.end(claimed, "failed", "ValueError: no")
    fleet.submit("waits", "waits-2", "waits-3")
    fleet.submit("other", queue="cpu_batch", priority="BATCH")
    fleet.submit("pinned", worker="cpu-2")
    fleet.submit("gpu", content_type="video", requires="gpu")
    fleet.send("foreign")
    client, keys = fleet.client, fleet.keys
    directory = Path("/nonexistent")
    for words in (["pause", "gpu_fallback"], ["cordon", "cordoned"], ["watch", "--once"]):
        run_verb(url, words, directory)
    client.hset(keys.attempts, mapping={"waits": 1, "story|waits": json.dumps([[1.0, "gone", "killed"]])})
    client.hset(keys.surprises, mapping={"web|cpu|0|n": 3, "web|cpu|0|x": "0.25"})
    client.set(keys.corrections, json.dumps({"web|cpu|0": [10, 1.2]}))
    client.set(keys.lease, json.dumps({
        "holder": "h", "term": 7, "who": "eve", "verb": "rebalance", "since": 1.0, "until": 2.0,
    }), px=1)  # fmt: skip
    client.set(keys.result("completed"), json.dumps({"status": "SUCCESS", "result": 1, "date_done": None}))
    client.sadd("_kombu.binding.celery.pidbox", "\x06\x16\x06\x16cpu-1@host.celery.pidbox")
    entry = fleet.broker.journal.latest(1)[0].entry_id
    found = {key: (max(client.pttl(key), 0), client.dump(key)) for key in client.scan_iter()}  # type: ignore[type-var]
    dumps = {key: (ttl, dump) for key, (ttl, dump) in found.items() if dump is not None}  # the others have expired
    assert not MARK.exists()
    yield Spoiled(fleet, dumps, entry)


LOSES = {"task cancel", "dead drop", "task retry", "dead requeue"}
"""Verbs that may take messages away."""


def complaints(
    spoiled: Spoiled, place: Place, kind: str, spoil: Spoil, verb: str, given: list[str], directory: Path
) -> list[str]:
    """Spoil the fleet, run the verb, and return what is wrong with its answer or with what it left."""
    spoiled.restore()
    spoil(spoiled.fleet.client)
    before = spoiled.task_ids()
    answer = run_verb(spoiled.fleet.url, spoiled.words(verb, given), directory)
    found = answer.complaints(must_answer=verb in ANSWERS)
    if verb not in LOSES and (lost := before - spoiled.task_ids()):
        found.append(f"lost {lost}")
    if MARK.exists():
        MARK.unlink()
        found.append("a pickle was loaded")
    if any(directory.iterdir()):
        found.append(f"wrote {list(directory.iterdir())}")
    return [f"{kind} in {place.name}: {one}" for one in found]


def all_trials() -> list[tuple[str, list[str]]]:
    """Return every verb with each of its arguments."""
    return [(verb, given) for verb, arguments in every_verb() for given in arguments]
