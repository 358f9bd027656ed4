"""Fixtures of the broker tests that call the scripts directly."""

from tests.broker.conftest import app, keys, options, runner

__all__ = ["app", "keys", "options", "runner"]
