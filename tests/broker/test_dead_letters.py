"""Dead letters are dropped with their ledger entries, in the retention time of the settings."""

import json

from morag_queue.broker.redis import RedisBroker
from morag_queue.settings import LedgerSettings, Settings


def test_drop_keeps_the_ledger_entry_for_the_retention_time_of_the_settings(valkey: str) -> None:
    broker = RedisBroker(Settings(redis_url=valkey, ledger=LedgerSettings(retention_seconds=77)))
    broker.client.hset(broker.keys.dead, "t", json.dumps({"at": 1}))
    broker.client.zadd(broker.keys.graves, {"t": 1})
    broker.client.set(broker.keys.task("t"), '{"state": "quarantined"}')

    assert broker.dead.drop(["t", "unknown"]) == [True, False]

    assert 70 < broker.client.ttl(broker.keys.task("t")) <= 77
    assert not broker.client.exists(broker.keys.dead, broker.keys.graves)
