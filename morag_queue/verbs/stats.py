"""stats: one picture and the counters; costs by the size of the fleet, not of the backlog."""

from typing import TYPE_CHECKING

from morag_queue.core.model import FleetStats
from morag_queue.core.stats import fleet_stats
from morag_queue.settings import Settings

if TYPE_CHECKING:
    from morag_queue.ports import Broker


def stats(broker: "Broker", settings: Settings, *, window_seconds: float = 3600.0) -> FleetStats:
    """Queues and workers now, with averages and rates of the last `window_seconds`."""
    picture, totals = broker.observe()
    windows = broker.windows(picture.taken_at, window_seconds)
    return fleet_stats(picture, windows, totals, settings.policy, window_seconds=window_seconds)
