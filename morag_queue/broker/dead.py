"""The dead: tasks that are not run again unasked. Failed for good, or taken back from dead workers too often."""

import json
from collections.abc import Iterator
from typing import Any

from redis import Redis

from .keys import Keys


class Dead:
    """The graves of one fleet; `keys.py` says what is in one."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys

    def all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every grave, the latest first."""
        found = [(name.decode(), _grave(text)) for name, text in self._client.hscan_iter(self._keys.dead, count=1000)]
        yield from sorted(found, key=lambda one: (-float(one[1].get("at") or 0), one[0]))


def _grave(text: bytes) -> dict[str, Any]:
    try:
        grave = json.loads(text)
    except ValueError:
        return {}
    return grave if isinstance(grave, dict) else {}
