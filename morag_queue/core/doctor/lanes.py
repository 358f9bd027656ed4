"""Keys, lanes and messages: what nobody polls, what nobody can read, what is not ours."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from morag_queue.core.lanes import queue_of
from morag_queue.core.model import QueueType
from morag_queue.core.snapshot import LaneView

from .facts import Facts, RedisKey
from .finding import Code, Finding, count, error, info, some, warning

KOMBU_SEP = "\x06\x16"


def check_keys(facts: Facts) -> Iterator[Finding]:
    """Our keys by name and type."""
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
            f"{count(len(unknown), 'key')} in our namespace that no part of this version knows",
            "another version's, or a stranger's: choose another `namespace` for one of the two, or delete them",
        )  # fmt: skip
    if space.partial:
        message = "the server has more keys than the doctor looks at: unknown keys and other separators may be missed"
        yield info(Code.NOT_CHECKED, "keys", message, "give the fleet a database or a server of its own")


def _wrong_type(key: RedisKey, wanted: str) -> Finding:
    return error(
        Code.WRONG_KEY_TYPE, key.name,
        f"the key {key.name} is a {key.kind}, not a {wanted}: nothing that needs it works",
        "something else uses the same key: choose another database or `namespace`, then delete the key",
    )  # fmt: skip


def _is_list(facts: Facts, key: RedisKey) -> bool:
    """Whether a key has the name of one of our lists."""
    known = {view.lane for view in facts.snapshot.lanes} | set(QueueType)
    lane, _, level = key.name.removeprefix(facts.keyspace.prefix).partition(facts.sep)
    return lane in known and level in ("", *"123456789")


def check_separators(facts: Facts) -> Iterator[Finding]:
    """Lists of our lanes under another separator, and workers that use one."""
    others: Counter[tuple[str, str]] = Counter()
    for key in facts.keyspace.like_lanes:
        if key.kind == "list" and (found := _other_separator(facts, key)) is not None:
            others[found] += 1
    for (lane, sep), lists in others.items():
        yield error(
            Code.SEPARATOR_DIFFERS, lane,
            f"{count(lists, 'list')} of {lane} under the separator {sep!r}, ours is {facts.sep!r}: what waits there is "
            "counted by nobody", _SEP_REMEDY,
        )  # fmt: skip
    differing = [
        view.worker for view in facts.snapshot.workers if (view.info.settings.get("sep") or KOMBU_SEP) != facts.sep
    ] + [one.worker for one in facts.agentless_workers if (_transport(one.conf).get("sep") or KOMBU_SEP) != facts.sep]
    if differing:
        message = "uses another separator between lane and level than this command: neither finds the other's messages"
        yield error(Code.SEPARATOR_DIFFERS, some(differing), message, _SEP_REMEDY)


_SEP_REMEDY = (
    "use one `sep` everywhere: broker.sep of morag-queue.toml and broker_transport_options['sep'] of every app; "
    "best leave it out, which is kombu's default"
)


def _other_separator(facts: Facts, key: RedisKey) -> tuple[str, str] | None:
    name = key.name.removeprefix(facts.keyspace.prefix)
    lanes = sorted({view.lane for view in facts.snapshot.lanes} | set(QueueType), key=len, reverse=True)
    lane = next((lane for lane in lanes if name.startswith(lane)), None)
    if lane is None:
        return None
    found = re.fullmatch(r"([^A-Za-z0-9]+)[0-9]", name[len(lane) :])
    return (lane, found[1]) if found and found[1] != facts.sep else None


def _transport(conf: object) -> dict[str, object]:
    options = conf.get("broker_transport_options") if hasattr(conf, "get") else None
    return options if isinstance(options, dict) else {}


def check_steps(facts: Facts) -> Iterator[Finding]:
    """Messages at levels that no reader of their lane polls, and workers with other steps than are published to."""
    for view in facts.snapshot.lanes:
        steps = _polled(facts, view)
        if steps is None:
            continue  # without a reader: another finding
        stranded = {level: length for level, length in enumerate(view.lengths) if length and level not in steps}
        if stranded:
            levels = ", ".join(map(str, stranded))
            yield error(
                Code.MESSAGES_STRANDED, view.lane,
                f"{count(sum(stranded.values()), 'message')} of {view.lane} at level {levels}, which none of its "
                "workers polls: they never run",
                "run the agent there, or set broker_transport_options['priority_steps'] = list(range(10)) in its app",
            )  # fmt: skip
    differing = {
        view.worker: view.info.priority_steps
        for view in facts.snapshot.workers
        if set(view.info.priority_steps) != set(facts.steps)
    }
    if differing:
        steps_shown = some(str(list(steps)) for steps in differing.values())
        yield warning(
            Code.PRIORITY_STEPS_DIFFER, some(differing),
            f"polls the levels {steps_shown}, not {list(facts.steps)}: priorities between its steps share a list there",
            "set priority_steps to list(range(10)) everywhere, and broker.priority_steps of morag-queue.toml too",
        )  # fmt: skip


def _polled(facts: Facts, lane: LaneView) -> frozenset[int] | None:
    """All levels that any reader of the lane polls; None where nobody reads it. One that is away may come back."""
    readers: Iterable[tuple[int, ...]] = [
        view.info.priority_steps
        for view in facts.snapshot.workers
        if lane.queue.value in view.info.queues and lane.worker in (None, view.worker)
    ]
    steps = [step for one in readers for step in one]
    steps += [
        step for one in facts.agentless_workers if lane.lane in one.queues for step in _steps(_transport(one.conf))
    ]
    return frozenset(steps) if steps else None


def _steps(options: dict[str, object]) -> Iterable[int]:
    steps = options.get("priority_steps")
    return [step for step in steps if isinstance(step, int)] if isinstance(steps, list | tuple) else (0, 3, 6, 9)


def check_messages(facts: Facts) -> Iterator[Finding]:
    """What the messages at the ends of the lanes look like."""
    foreign = Counter(one.lane for one in facts.samples if not one.is_celery)
    for lane, number in foreign.items():
        yield warning(
            Code.FOREIGN_MESSAGES, lane,
            f"at least {count(number, 'message')} of {lane} not of Celery's form: left where it is",
            f"look at them with LRANGE {lane} 0 10, find who writes them, and take them out",
        )  # fmt: skip
    without = Counter(
        one.lane for one in facts.samples if one.is_celery and not one.is_ours and not one.level and queue_of(one.lane)
    )
    for lane, number in without.items():
        yield warning(
            Code.NO_PRIORITY, lane,
            f"at least {count(number, 'message')} of {lane} without a priority: kombu's 0, before URGENT ones",
            "send them with apply_async(priority=…), or app.conf.task_routes = (morag_queue.route_task,)",
        )  # fmt: skip
