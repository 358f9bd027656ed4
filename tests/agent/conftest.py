"""Fixtures of the broker tests that call the scripts directly."""

from tests.broker.conftest import app, bench, keys, options

__all__ = ["app", "bench", "keys", "options"]
