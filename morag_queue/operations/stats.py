"""stats: one snapshot and the counters. The cost depends on the fleet, not on the backlog.

Imports little: the start of this command is part of the contract.
"""

from typing import TYPE_CHECKING

from morag_queue.core.stats import RATE_SECONDS, FleetStats, fleet_stats
from morag_queue.settings import Settings

from .liveness import count_connections

if TYPE_CHECKING:
    from morag_queue.broker.contract import Broker


def stats(broker: "Broker", settings: Settings, *, window_seconds: float = 3600.0) -> FleetStats:
    """Return queues and workers now, with averages and rates over the last `window_seconds`."""
    snapshot, totals, (windows, recent) = broker.observe_with_windows(window_seconds, RATE_SECONDS)
    snapshot = count_connections(broker, snapshot)
    return fleet_stats(snapshot, windows, totals, settings.policy, window_seconds=window_seconds, recent=recent)
