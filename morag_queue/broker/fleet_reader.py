"""Read what routing needs of the fleet, again and again, at the least cost for the server and the process.

`RedisBroker.observe` reads more: lanes with their ends, totals, every registration. With a thousand workers a producer
would spend 20 ms on it, in which its other threads hardly run. This reader decodes less, in small parts, and keeps the
registrations, which change only when a worker starts.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, ClassVar, TypeVar

from redis import Redis

from morag_queue.core import lanes
from morag_queue.core.model import WorkerInfo
from morag_queue.core.routing.feasibility import WorkerLoad, worker_load
from morag_queue.core.snapshot import EMPTY_LENGTHS, LaneView, Snapshot, WorkerView
from morag_queue.core.worker_status import node_of, runs_agent
from morag_queue.settings import Settings

from .codec import cordon_in_force, read_corrections, read_heartbeat, read_held, read_worker, unreadable_worker
from .keys import Keys
from .scripts import Call, Script
from .snapshot import FENCED, node_names, paused_queues
from .steps import QueueSteps
from .translated import translated

Pause = Callable[[], None]

T = TypeVar("T")

_FENCED = FENCED.decode()

_PART = 100
"""Items between two pauses: of registrations, which take longest, 0.6 ms."""

_REREAD_SECONDS = 60.0
"""How long a registration is kept. It changes with the incarnation, except where a program registers a worker twice."""


@dataclass(frozen=True)
class FleetCall(Call):
    SCRIPT: ClassVar = "fleet"
    KEYS: ClassVar = ("incarnations", "beats", "cordons", "paused", "corrections", "held", "lanes")

    mailboxes: str
    with_loads: bool


@dataclass(frozen=True)
class LaneLengthsCall(Call):
    SCRIPT: ClassVar = "lane_lengths"

    prefix: str
    sep: str
    lanes: Sequence[str]


class FleetReader:
    """Reads what routing needs: of the snapshot no shared lanes, totals and leader, and of a worker its load.

    Without `with_loads`, what the workers hold and their lanes are left out too: the place of a task depends on them
    only in early binding, its expected worker always.
    """

    def __init__(self, client: Redis, keys: Keys, settings: Settings, *, with_loads: bool) -> None:
        self._client, self._keys, self._url, self._with_loads = client, keys, settings.redis_url, with_loads
        self._fleet = Script(client, keys, FleetCall)
        self._lengths = Script(client, keys, LaneLengthsCall)
        self._steps = QueueSteps(client, settings)
        self._policy = settings.policy
        self._infos: Mapping[str, WorkerInfo] = {}
        self._loads: Mapping[str, WorkerLoad] = {}
        self._reread_at = 0.0

    def read(self, pause: Pause = lambda: None) -> tuple[Snapshot, Mapping[str, WorkerLoad]]:
        """Read the fleet now: a snapshot without workers, and the load of each worker.

        `pause` is called between parts of the work, each of about a millisecond. Raises BrokerUnreachable or
        BrokerError.
        """
        with translated(self._url):
            mailboxes = f"{self._keys.prefix}_kombu.binding.celery.pidbox"
            seconds, micros, corrections, *texts = self._fleet(FleetCall(mailboxes, self._with_loads))
            acting, beats, cordons, paused, nodes, held, own_lanes = (_decoded(part, pause) for part in texts)
            snapshot = Snapshot(
                taken_at=int(seconds) + int(micros) / 1e6,
                lanes=self._lanes(own_lanes, pause),
                held=tuple(
                    message
                    for tag, text in in_parts(_mapping(held).items(), pause)
                    if (message := read_held(tag, text)) is not None
                ),
                paused=paused_queues(paused),
                corrections=read_corrections(corrections),
                nodes=node_names(nodes, self._keys.sep),
            )
            pause()
            loads, agents = dict[str, WorkerLoad](), set[str]()
            for view in self._views(_mapping(acting), _mapping(beats), _mapping(cordons), int(seconds), pause):
                loads[view.worker] = self._kept(worker_load(snapshot, view, self._policy))
                if runs_agent(view, snapshot.taken_at, self._policy):
                    agents.add(node_of(view.info))
            self._loads = loads
            return replace(snapshot, steps=self._steps.of(snapshot.nodes, lambda: agents)), loads

    def _kept(self, load: WorkerLoad) -> WorkerLoad:
        """Return the former object if it is equal.

        Otherwise each reading would leave thousands of new objects, and Python would soon search the whole process for
        garbage, which stops it for tens of milliseconds. For the same reason no view is kept.
        """
        former = self._loads.get(load.worker)
        return former if former == load else load

    def _views(
        self, acting: Mapping[str, str], beats: Mapping[str, str], cordons: Mapping[str, str], now: int, pause: Pause
    ) -> Iterator[WorkerView]:
        self._infos = self._registrations(acting, pause)
        pause()
        for worker, info in in_parts(self._infos.items(), pause):
            beat = read_heartbeat(beats.get(worker))
            cordon = cordon_in_force(cordons.get(worker), now)
            yield WorkerView(info, beat, cordon, fenced=acting[worker] == _FENCED)

    def _registrations(self, acting: Mapping[str, str], pause: Pause) -> Mapping[str, WorkerInfo]:
        """Return the registration of each worker, given its incarnation; read those that may have changed."""
        infos = {}
        if monotonic() < self._reread_at:
            known = ((worker, self._infos.get(worker)) for worker in acting)
            infos = {worker: info for worker, info in known if info and acting[worker] in (info.incarnation, _FENCED)}
        else:
            self._reread_at = monotonic() + _REREAD_SECONDS
        missing = [worker for worker in acting if worker not in infos]
        for part in _batches(missing):
            texts: Any = self._client.hmget(self._keys.workers, part)
            infos |= {
                worker: read_worker(worker, text) or unreadable_worker(worker, acting[worker])[0]
                for worker, text in zip(part, texts, strict=True)
                if text is not None
            }
            pause()
        return infos

    def _lanes(self, names: Sequence[str], pause: Pause) -> tuple[LaneView, ...]:
        """Return the lanes of workers, with all messages at level 0: routing only counts them."""
        found = []
        for part in _batches(names):
            counts = self._lengths(LaneLengthsCall(self._keys.prefix, self._keys.sep, part))
            for name, count in zip(part, counts, strict=True):
                if count and (queue := lanes.queue_of(name)) is not None:
                    found.append(LaneView(name, queue, lanes.split(name)[1], (count, *EMPTY_LENGTHS[1:])))
            pause()
        return tuple(found)


def _decoded(texts: Iterable[bytes], pause: Pause) -> list[str]:
    """Return the items of JSON arrays of texts, see fleet.lua."""
    items: list[str] = []
    for text in texts:
        items += json.loads(text.decode(errors="replace"))
        pause()
    return items


def _mapping(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def in_parts(items: Iterable[T], pause: Pause) -> Iterator[T]:
    """Yield the items, and call `pause` after each hundred."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _PART == 0:
            pause()


def _batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    return (items[start : start + _PART] for start in range(0, len(items), _PART))
