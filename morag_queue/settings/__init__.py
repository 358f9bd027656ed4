"""The settings, and the origin of each value.

A thin layer over tomllib and pydantic models instead of pydantic-settings, whose import costs a command 30–35 ms of CPU
time (a tenth of the budget of `stats`), and which reports neither the origin of a value nor the nearest name of an
unknown key.
"""

from .model import AgentSettings, BrokerSettings, LedgerSettings, Settings, TaskNames
from .sources import LoadedSettings, load
from .urls import mask_url

__all__ = [
    "AgentSettings",
    "BrokerSettings",
    "LedgerSettings",
    "LoadedSettings",
    "Settings",
    "TaskNames",
    "load",
    "mask_url",
]
