"""Findings about keys, lanes and messages, each caused on a real server."""

from celery import Celery

from morag_queue.broker.keys import Keys, fixed_keys
from morag_queue.broker.samples import key_families
from morag_queue.core.doctor import Code, Severity


def test_every_key_property_documents_its_redis_type():
    members = {getattr(Keys(), name) for name, member in vars(Keys).items() if isinstance(member, property)}
    assert fixed_keys(Keys()).keys() == members, (
        "its description in Keys should begin with hash:, set:, string:, list: …"
    )
    assert {"mq:task:", "mq:minute:", "mq:hour:"} <= set(key_families(Keys()))


def test_a_working_fleet_creates_no_key_that_the_doctor_calls_unknown(examine, register, queue):
    register()
    queue()
    assert set(examine()) == {Code.NO_APPEND_ONLY_FILE, Code.QUEUE_WITHOUT_WORKER}


def test_a_key_of_the_wrong_type_is_named(examine, client):
    client.set("cpu_standard", "mine")
    assert examine()[Code.WRONG_KEY_TYPE].message.startswith(
        "the key cpu_standard is a string, not a list: only commands that change nothing work without it"
    )
    client.delete("cpu_standard")
    client.set("mq:workers", "mine")
    found = examine()
    assert found[Code.WRONG_KEY_TYPE].message.startswith("the key mq:workers is a string, not a hash")
    assert Code.NOT_CHECKED not in found
    assert Code.BROKEN_VALUE not in found


def test_unknown_keys_in_our_namespace_are_counted_and_fixed_keys(examine, client):
    client.mset({"mq:cache": 1, "mq:other:2": 2, "elsewhere": 3})
    found = examine()[Code.UNKNOWN_KEYS]
    assert (found.subject, found.message.split(" in ")[0]) == ("mq:cache, mq:other:2", "2 keys")


def test_lists_with_another_separator_are_found(examine, client):
    client.lpush("cpu_standard:3", "x")
    client.lpush("cpu_standard:6", "x")
    client.lpush("cpu_standard_archive", "x")
    found = examine()[Code.SEPARATOR_DIFFERS]
    assert found.subject == "cpu_standard"
    assert "2 lists of cpu_standard under the separator ':'" in found.message


def test_a_worker_with_another_separator_is_fixed_keys(examine, register):
    register(settings={"sep": ":"})
    assert examine()[Code.SEPARATOR_DIFFERS].subject == "worker-1"
    assert Code.SEPARATOR_DIFFERS not in examine(sep=":")


def test_messages_at_a_level_that_no_worker_polls_are_stranded(examine, register, queue):
    register(priority_steps=(0, 3, 6, 9))
    queue(level=4)
    found = examine()
    assert found[Code.MESSAGES_STRANDED].message == (
        "1 message of cpu_standard at level 4 will never run: none of its workers polls that level"
    )
    assert found[Code.PRIORITY_STEPS_DIFFER].message == (
        "polls the levels [0, 3, 6, 9], not [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]: priorities share levels on its queues"
    )
    register("worker-2")
    found = examine(priority_steps=(0, 3, 6, 9))
    assert Code.MESSAGES_STRANDED not in found
    assert Code.PRIORITY_STEPS_DIFFER not in found, "the fleet uses no other levels"
    assert found[Code.MESSAGES_UNSEEN].message == (
        "worker-1 never finds 1 message of cpu_standard at level 4: it polls only 0, 3, 6, 9"
    )
    assert found[Code.MESSAGES_UNSEEN].remedy == "move them to levels that all workers poll: morag-queue rebalance"


def test_tasks_in_a_queue_without_a_worker_in_service_are_an_error(examine, register, queue):
    queue("gpu_priority")
    register()
    found = examine()[Code.QUEUE_WITHOUT_WORKER]
    assert (found.severity, found.subject) == (Severity.ERROR, "gpu_priority")
    assert found.message == "1 task waits in gpu_priority, and no worker in service reads it"


def test_tasks_in_the_lane_of_an_absent_worker_are_an_error(examine, register, queue):
    queue("cpu_standard.worker-9")
    assert "the lane of worker-9, which is not registered" in examine()[Code.LANE_WITHOUT_WORKER].message
    register("worker-9", beat={"stopped": True})
    found = examine()[Code.LANE_WITHOUT_WORKER]
    assert "which is offline" in found.message
    assert found.remedy.startswith("morag-queue failover worker-9")


def test_messages_that_are_not_celerys_are_counted_and_stay_in_the_lane(examine, client):
    client.lpush("cpu_batch", "not json", '{"json": "but no message"}')
    found = examine()[Code.FOREIGN_MESSAGES]
    assert (found.subject, found.severity) == ("cpu_batch", Severity.WARNING)
    assert found.message == "at least 2 messages in cpu_batch are not Celery's and stay where they are"
    assert client.llen("cpu_batch") == 2


def test_a_message_without_a_priority_is_a_warning(examine, register, valkey):
    register()
    with Celery(broker=valkey, set_as_current=False) as producer:
        producer.send_task("t", queue="cpu_standard")
    assert "kombu's default is level 0, that of URGENT tasks" in examine()[Code.NO_PRIORITY].message
    assert Code.FOREIGN_MESSAGES not in examine()


def test_a_task_that_exceeded_the_maximum_wait_of_its_priority_is_starving(examine, register, queue):
    register(beat={"active": 1})
    queue(level=0, age_s=20 * 60)
    found = examine()[Code.TASKS_STARVING]
    assert found.message == "an URGENT task has waited 20 min in cpu_standard; the limit is 15 min"


def test_an_unacked_message_without_an_owner_is_stuck(examine, register, queue, claim):
    register()
    claim(queue(), "")
    assert examine()[Code.UNOWNED_MESSAGES].message == "1 unacked message is stuck: no known worker holds it"
