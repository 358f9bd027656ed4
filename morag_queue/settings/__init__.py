"""The settings, and the origin of each value.

A thin layer over tomllib and dataclasses (`core.setting`) instead of pydantic-settings, whose import costs a command
30–35 ms of CPU time (a tenth of the budget of `stats`), and which reports neither the origin of a value nor the nearest
name of an unknown key.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .urls import mask_url

if TYPE_CHECKING:
    from .model import AgentSettings, BrokerSettings, LedgerSettings, Settings, TaskNames
    from .sources import LoadedSettings, load

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


def __getattr__(name: str) -> Any:
    # Import lazily: shell completion reads `locations` only.
    if name in __all__:
        module = "sources" if name in ("LoadedSettings", "load") else "model"
        return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
