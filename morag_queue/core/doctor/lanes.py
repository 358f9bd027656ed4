"""Checks of keys, lanes and messages: types, separators, polled levels, foreign messages."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from morag_queue.core.lanes import queue_of
from morag_queue.core.levels import DEFAULT_STEPS
from morag_queue.core.model import QueueType
from morag_queue.core.routing.lane_readers import readers_in
from morag_queue.core.snapshot import LaneView
from morag_queue.core.words import count_of, is_are, some

from .facts import FleetFacts, RedisKey
from .finding import Code, Finding, error, warning

KOMBU_SEP = "\x06\x16"


def check_keys(facts: FleetFacts) -> Iterator[Finding]:
    """Check our keys by name and type."""
    space = facts.keyspace
    unknown = []
    for key in space.own:
        wanted = space.expected.get(key.name)
        if wanted is None and not key.name.startswith(space.families):
            unknown.append(key.name)
        elif wanted not in (None, key.kind):
            yield _wrong_type(key, str(wanted))
    yield from (_wrong_type(key, "list") for key in space.like_lanes if key.kind != "list" and _is_list(facts, key))
    if unknown:
        yield warning(
            Code.UNKNOWN_KEYS, some(unknown),
            f"{count_of(len(unknown), 'key')} in our namespace that this version does not use",
            "they belong to another version or program: give one of the two another `namespace`, or delete them",
        )  # fmt: skip


def check_values(facts: FleetFacts) -> Iterator[Finding]:
    """Report the values of our keys that cannot be read."""
    wrong = {key.name for key in facts.keyspace.own if facts.keyspace.expected.get(key.name) not in (None, key.kind)}
    for value in facts.broken:
        if value.key not in wrong:  # which has its own finding
            subject = f"{value.key} {value.field}".rstrip()
            yield warning(Code.BROKEN_VALUE, subject, f"{subject}: {value.reason}", value.remedy)


def _wrong_type(key: RedisKey, wanted: str) -> Finding:
    return error(
        Code.WRONG_KEY_TYPE, key.name,
        f"the key {key.name} is a {key.kind}, not a {wanted}: only commands that change nothing work without it",
        "another program uses this key: choose another database or `namespace`, then delete the key",
    )  # fmt: skip


def _is_list(facts: FleetFacts, key: RedisKey) -> bool:
    """Return whether a key has the name of one of our lists."""
    known = {view.lane for view in facts.snapshot.lanes} | set(QueueType)
    lane, _, level = key.name.removeprefix(facts.keyspace.prefix).partition(facts.sep)
    return lane in known and level in ("", *"123456789")


def check_separators(facts: FleetFacts) -> Iterator[Finding]:
    """Find lists of our lanes with another separator, and workers that use another one."""
    others: Counter[tuple[str, str]] = Counter()
    for key in facts.keyspace.like_lanes:
        if key.kind == "list" and (found := _other_separator(facts, key)) is not None:
            others[found] += 1
    for (lane, sep), lists in others.items():
        yield error(
            Code.SEPARATOR_DIFFERS, lane,
            f"{count_of(lists, 'list')} of {lane} under the separator {sep!r}, ours is {facts.sep!r}: "
            "the messages there are not counted", _SEP_REMEDY,
        )  # fmt: skip
    separators = [(view.worker, view.info.settings.get("sep")) for view in facts.snapshot.workers]
    separators += [(agentless.worker, _transport(agentless.conf).get("sep")) for agentless in facts.agentless_workers]
    differing = [worker for worker, sep in separators if (sep or KOMBU_SEP) != facts.sep]
    if differing:
        message = "uses another separator between lane and level than this command: neither finds the other's messages"
        yield error(Code.SEPARATOR_DIFFERS, some(differing), message, _SEP_REMEDY)


_SEP_REMEDY = (
    "use one `sep` everywhere: broker.sep of morag-queue.toml and broker_transport_options['sep'] of every app; "
    "best leave it unset, which is kombu's default"
)


def _other_separator(facts: FleetFacts, key: RedisKey) -> tuple[str, str] | None:
    """Return (lane, separator) of a key that is a list of one of our lanes with another separator, else None."""
    name = key.name.removeprefix(facts.keyspace.prefix)
    lanes = sorted({view.lane for view in facts.snapshot.lanes} | set(QueueType), key=len, reverse=True)
    lane = next((lane for lane in lanes if name.startswith(lane)), None)
    if lane is None:
        return None
    found = re.fullmatch(r"([^A-Za-z0-9]+)[0-9]", name[len(lane) :])
    return (lane, found[1]) if found and found[1] != facts.sep else None


def _transport(conf: object) -> dict[str, object]:
    """Return the broker_transport_options of Celery settings, empty if they have none."""
    options = conf.get("broker_transport_options") if hasattr(conf, "get") else None
    return options if isinstance(options, dict) else {}


def check_steps(facts: FleetFacts) -> Iterator[Finding]:
    """Find messages at levels that readers of their lane do not poll, and workers that poll too few levels."""
    readers = readers_in(facts.snapshot, facts.queues)
    for view in facts.snapshot.lanes:
        polled = _polled(facts, view)
        if not polled:
            continue  # a lane without a worker has its own finding
        waiting = {level: length for level, length in enumerate(view.lengths) if length}
        stranded = waiting.keys() - frozenset.union(*polled.values())
        if stranded:
            levels, count = _listed(stranded), sum(waiting[level] for level in stranded)
            yield error(
                Code.MESSAGES_STRANDED, view.lane,
                f"{count_of(count, 'message')} of {view.lane} at level {levels} will never run: "
                f"none of its workers polls {'that level' if len(stranded) == 1 else 'those levels'}",
                _levels_remedy(stranded, readers.steps[view.queue]),
            )  # fmt: skip
        yield from _unseen(view, waiting, stranded, polled, readers.steps[view.queue])
    differing = {
        view.worker: view.info.priority_steps
        for view in facts.snapshot.workers
        if not set(facts.snapshot.steps) <= set(view.info.priority_steps)
    }
    if differing:
        steps_shown = some(str(list(steps)) for steps in differing.values())
        yield warning(
            Code.PRIORITY_STEPS_DIFFER, some(differing),
            f"polls the levels {steps_shown}, not {list(facts.snapshot.steps)}: priorities share levels on its queues",
            "set priority_steps to list(range(10)) on every worker, or broker.priority_steps of morag-queue.toml to "
            "the levels that all of them poll",
        )  # fmt: skip


def _unseen(
    view: LaneView,
    waiting: Mapping[int, int],
    stranded: Collection[int],
    polled: Mapping[str, frozenset[int]],
    steps: Sequence[int],
) -> Iterator[Finding]:
    """Report levels that some readers of the lane poll and others do not."""
    for worker, levels in polled.items():
        unseen = waiting.keys() - levels - set(stranded)
        if unseen:
            yield warning(
                Code.MESSAGES_UNSEEN, view.lane,
                f"{worker} never finds {count_of(sum(waiting[level] for level in unseen), 'message')} of {view.lane} "
                f"at level {_listed(unseen)}: it polls only {_listed(levels)}",
                _levels_remedy(unseen, steps),
            )  # fmt: skip


def _listed(levels: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(levels)))


def _levels_remedy(levels: Collection[int], steps: Sequence[int]) -> str:
    move = "move them to levels that all workers poll: morag-queue rebalance"
    if set(levels).isdisjoint(steps):
        return move
    return f'set broker.priority_steps of morag-queue.toml to "auto" or [0, 3, 6, 9], then {move}'


def _polled(facts: FleetFacts, lane: LaneView) -> dict[str, frozenset[int]]:
    """Return the levels that each worker of the lane polls, in service or not."""
    polled = {
        view.worker: frozenset(view.info.priority_steps)
        for view in facts.snapshot.workers
        if lane.queue.value in view.info.queues and lane.worker in (None, view.worker)
    }
    for agentless in facts.agentless_workers:
        if lane.lane in agentless.queues:
            polled[agentless.worker] = frozenset(_steps(_transport(agentless.conf)))
    return polled


def _steps(options: dict[str, object]) -> Iterable[int]:
    """Return the priority steps in transport options."""
    steps = options.get("priority_steps")
    return [step for step in steps if isinstance(step, int)] if isinstance(steps, list | tuple) else DEFAULT_STEPS


def check_messages(facts: FleetFacts) -> Iterator[Finding]:
    """Check the sampled messages: foreign ones, and ones without a priority."""
    foreign = Counter(sample.lane for sample in facts.samples if not sample.is_celery)
    for lane, number in foreign.items():
        yield warning(
            Code.FOREIGN_MESSAGES, lane,
            f"at least {count_of(number, 'message')} in {lane} {is_are(number)} not Celery's and stay where they are",
            f"list them with LRANGE {lane} 0 10, find the program that writes them, and remove them",
        )  # fmt: skip
    without = Counter(
        sample.lane
        for sample in facts.samples
        if sample.is_celery and not sample.is_ours and not sample.level and queue_of(sample.lane)
    )
    for lane, number in without.items():
        yield warning(
            Code.NO_PRIORITY, lane,
            f"at least {count_of(number, 'message')} in {lane} without a priority: kombu's default is level 0, "
            "that of URGENT tasks",
            "send them with apply_async(priority=…), or app.conf.task_routes = (morag_queue.route_task,)",
        )  # fmt: skip
