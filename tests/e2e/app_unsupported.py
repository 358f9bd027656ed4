"""`tests.e2e.app` with a redis-py that lacks a private class that the claim uses, as a future version may."""

import redis._parsers

del redis._parsers._RESP3Parser

from tests.e2e.app import app  # noqa: E402

__all__ = ["app"]
