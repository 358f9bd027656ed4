"""What can be configured, and where each value came from.

A thin layer of our own over tomllib and pydantic models. pydantic-settings was measured first: its import adds 30–35 ms
of CPU to a command that has imported pydantic and redis already, a tenth of all that `stats` may take, and it knows
neither the origin of a value nor the nearest name of a wrong key, which are what a user needs from settings.
"""

from .model import AgentSettings, BrokerSettings, LedgerSettings, Settings, TaskNames
from .sources import Loaded, load
from .urls import mask_url

__all__ = [
    "AgentSettings",
    "BrokerSettings",
    "LedgerSettings",
    "Loaded",
    "Settings",
    "TaskNames",
    "load",
    "mask_url",
]
