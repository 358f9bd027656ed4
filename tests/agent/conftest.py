"""The scripts with nothing between, as for the broker's contract tests."""

from tests.broker.conftest import app, bench, keys, options

__all__ = ["app", "bench", "keys", "options"]
