"""Read and backdate the records of a fleet."""

import json

from tests.support.records import backdated

RECOVERY_COUNTS = ("requeued_tasks", "moved_tasks", "recovered_tasks", "quarantined_tasks")


def recovery_counts(answer):
    """Return the counts of a failover's answer: requeued, moved, recovered, quarantined."""
    return tuple(answer[name] for name in RECOVERY_COUNTS)


def pending_tasks(fleet):
    """Return the number of waiting tasks in all queues."""
    return sum(queue["pending_tasks"] for queue in fleet("stats", "--json").json["queues"])


def cordon_of(sim_fleet, worker):
    return sim_fleet.broker.cordons.get(worker)


def journaled_verbs(sim_fleet):
    """Return verb and subject of each journal entry, oldest first."""
    return [(entry.verb, entry.subject) for entry in reversed(sim_fleet.broker.journal.latest(50))]


def backdate_beat(sim_fleet, worker, seconds):
    """Make the last heartbeat of a worker older."""
    beat = json.loads(sim_fleet.client.hget(sim_fleet.keys.beats, worker))
    sim_fleet.client.hset(sim_fleet.keys.beats, worker, json.dumps(beat | {"at": beat["at"] - seconds}))


def backdate_unacked(sim_fleet, seconds):
    """Make the last keep-alive of all unacked messages older."""
    for tag, at in sim_fleet.client.zrange(sim_fleet.keys.unacked_index, 0, -1, withscores=True):
        sim_fleet.client.zadd(sim_fleet.keys.unacked_index, {tag: at - seconds})


def backdate_tasks(sim_fleet, *task_ids, lane="cpu_standard", seconds=30.0):
    """Make the enqueue times of the tasks in the ledger, and of all messages in the lane, older."""
    for task_id in task_ids:
        key = sim_fleet.keys.task(task_id)
        sim_fleet.client.set(key, backdated(sim_fleet.client.get(key), seconds))
    for level in range(10):
        name = sim_fleet.keys.list(lane, level)
        for index, raw in enumerate(sim_fleet.client.lrange(name, 0, -1)):
            message = json.loads(raw)
            message["headers"]["morag_queue"]["enqueued_at"] -= seconds
            sim_fleet.client.lset(name, index, json.dumps(message))
