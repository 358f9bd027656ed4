"""Properties of routing that hold for any fleet, task and queue table."""

from hypothesis import given
from hypothesis import strategies as st

from morag_queue.core.lanes import split
from morag_queue.core.model import Capability, ContentType, QueuePriority, QueueType, Requires
from morag_queue.core.policy import Binding, Order, Policy, QueuePolicy, Queues
from morag_queue.core.routing.router import Router, route
from morag_queue.core.routing.types import Refusal, TaskProfile
from tests.core.fleets import fleet, held, queued, worker

NAMES = ("a", "b", "c.d", "e*", "f")
capabilities = st.sampled_from([capability.value for capability in Capability])
some_queues = st.sets(st.sampled_from(QueueType)).map(tuple)
numbers = st.floats(allow_nan=True, allow_infinity=True)

tasks = st.builds(
    TaskProfile,
    requires=st.sampled_from(Requires),
    priority=st.sampled_from(QueuePriority),
    content_type=st.none() | st.sampled_from(ContentType),
    estimated_minutes=st.floats(0, 500) | numbers,
    memory_gb=st.sampled_from([0.0, 0.5, 2.0, 100.0]) | numbers,
    confidence=st.floats(0, 1) | numbers,
)
rows = st.builds(
    QueuePolicy,
    served_by=st.sets(st.sampled_from(Capability)).map(tuple),
    max_tasks_per_worker=st.integers(1, 4),
    weight=st.just(1.0),
    timeout_minutes=st.just(60.0),
    fallback=st.sampled_from(QueueType),
)
tables = st.just(Queues()) | st.builds(Queues, **{queue.value: rows for queue in QueueType})
policies = st.builds(Policy, binding=st.sampled_from(Binding), order=st.sampled_from(Order))


def workers_named(name, *, healthy):
    return st.builds(
        worker,
        st.just(name),
        capabilities,
        beat_age=st.just(1.0) if healthy else st.none() | st.sampled_from([1.0, 20.0, 90.0]),
        stopped=st.just(False) if healthy else st.booleans(),
        cordon=st.none() if healthy else st.none() | st.sampled_from(["cordoned", "draining", "drained"]),
        queues=some_queues,
        slots=st.integers(0, 4),
        memory_gb=st.sampled_from([0.0, 1.0, 64.0]),
        content_types=st.sets(st.sampled_from(ContentType), max_size=2).map(tuple),
        priority_steps=st.sampled_from([tuple(range(10)), (0, 3, 6, 9), (1, 5), ()]),
        claims=st.booleans(),
    )


@st.composite
def fleets(draw, *, healthy=False):
    names = draw(st.sets(st.sampled_from(NAMES)))
    workers = [draw(workers_named(name, healthy=healthy)) for name in sorted(names)]
    queues, counts = st.sampled_from(QueueType), st.integers(0, 3)
    messages = [message for name in sorted(names) for message in held(name, draw(queues), draw(counts))]
    lanes = {(draw(queues), name): draw(counts) for name in (None, *sorted(names))}
    return fleet(
        *workers,
        held=tuple(messages),
        lanes=tuple(queued(queue, count, name) for (queue, name), count in lanes.items()),
        paused=draw(st.frozensets(st.sampled_from(QueueType), max_size=2)),
    )


def readers(snapshot, lane):
    queue, owner = split(lane)
    reading = [view.info for view in snapshot.workers if queue in view.info.queues]
    return reading if owner is None else [info for info in reading if info.worker == owner]


requests = st.fixed_dictionaries(
    {"pin": st.none() | st.sampled_from([*NAMES, "unknown"]), "queue": st.none() | st.sampled_from(QueueType)}
)


@given(tasks, fleets(), policies, tables, requests, st.booleans())
def test_every_task_gets_a_placement_or_a_refusal_with_a_message(task, snapshot, policy, queues, request, force):
    answer = route(task, snapshot, policy, queues, force=force, **request)
    if isinstance(answer, Refusal):
        assert answer.message
    else:
        assert answer.level in range(10)
        assert answer.decision.reason
        assert split(answer.lane)[0] == answer.queue == answer.decision.target_queue


@given(tasks, fleets(), policies, tables, requests, st.booleans())
def test_gpu_only_work_never_enters_a_lane_that_a_worker_without_a_gpu_reads(
    task, snapshot, policy, queues, request, force
):
    gpu_only = TaskProfile(Requires.GPU, task.priority, task.content_type, task.estimated_minutes, task.memory_gb)
    answer = route(gpu_only, snapshot, policy, queues, force=force, **request)
    if isinstance(answer, Refusal):
        return
    assert all(info.capability.has_gpu for info in readers(snapshot, answer.lane))
    assert Capability.CPU not in queues.of(answer.queue).served_by
    assert all(info.capability.has_gpu for info in readers(snapshot, answer.queue.value))


@given(tasks, fleets(), policies, tables, st.sampled_from([*NAMES, "unknown"]), st.booleans())
def test_a_pinned_task_goes_to_a_lane_of_its_worker_or_is_refused(task, snapshot, policy, queues, pin, force):
    answer = route(task, snapshot, policy, queues, pin=pin, force=force)
    if not isinstance(answer, Refusal):
        assert split(answer.lane)[1] == pin == answer.decision.worker_id
        assert pin not in snapshot.worker_by_id or readers(snapshot, answer.lane)


@given(tasks, fleets(), policies, tables, st.sampled_from(QueueType))
def test_a_named_queue_is_kept_or_refused(task, snapshot, policy, queues, queue):
    answer = route(task, snapshot, policy, queues, queue=queue)
    assert isinstance(answer, Refusal) or answer.queue is queue


@given(tasks, fleets(), policies, tables, requests)
def test_the_level_is_polled_by_all_readers_of_the_lane_if_they_have_a_common_step(
    task, snapshot, policy, queues, request
):
    answer = route(task, snapshot, policy, queues, **request)
    if isinstance(answer, Refusal):
        return
    polled = [set(info.priority_steps) for info in readers(snapshot, answer.lane)]
    if polled and set.intersection(*polled):
        assert answer.level in set.intersection(*polled)


@given(st.lists(tasks, max_size=20), fleets(healthy=True), policies, tables)
def test_in_a_batch_each_task_names_the_best_worker_of_its_table_within_its_limit(batch, snapshot, policy, queues):
    router = Router(snapshot, policy, queues)
    assigned = {}
    for task in batch:
        answer = router.route(task, explain=True)
        if isinstance(answer, Refusal) or answer.queue in snapshot.paused:
            continue
        fit = [row for row in answer.scores if row.verdict == "fit"]
        assert answer.decision.worker_id == (fit[0].worker if fit else None)
        if split(answer.lane)[1] is not None:
            assigned[answer.lane] = assigned.get(answer.lane, 0) + 1
    for lane, count in assigned.items():
        assert count <= queues.of(QueueType(split(lane)[0])).max_tasks_per_worker


@given(st.lists(tasks, max_size=20), fleets(), policies, tables)
def test_a_place_is_that_of_the_whole_routing(batch, snapshot, policy, queues):
    places, router = Router(snapshot, policy, queues), Router(snapshot, policy, queues)
    for task in batch:
        answer = router.route(task)
        place = answer if isinstance(answer, Refusal) else (answer.queue, answer.lane, answer.level)
        assert places.place(task) == place


@given(tasks, st.sampled_from([("cpu", Requires.CPU), ("gpu", Requires.GPU), ("gpu", Requires.GPU_PREFERRED)]),
       st.integers(0, 3), policies)  # fmt: skip
def test_at_equal_loads_a_hybrid_loses_to_the_specialist(task, specialist, load, policy):
    capability, requires = specialist
    work = TaskProfile(requires, task.priority, task.content_type, task.estimated_minutes, 0.0)
    snapshot = fleet(
        worker("a-hybrid", "hybrid", slots=4),
        worker("specialist", capability, slots=4),
        held=held("a-hybrid", QueueType.CPU_BATCH, load) + held("specialist", QueueType.CPU_BATCH, load),
    )
    answer = route(work, snapshot, policy, Queues())
    assert answer.decision.worker_id == "specialist"


@given(tasks, fleets(), policies, tables)
def test_every_score_is_between_0_and_1_and_only_a_fit_worker_has_one(task, snapshot, policy, queues):
    answer = route(task, snapshot, policy, queues)
    if not isinstance(answer, Refusal):
        assert len(answer.scores) == len(snapshot.workers)
        for row in answer.scores:
            assert 0 <= row.score <= 1
            assert (row.score > 0) == (row.verdict == "fit")
