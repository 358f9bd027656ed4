"""What a server was used for between two moments."""

from dataclasses import dataclass
from typing import Any

import redis


@dataclass(frozen=True, slots=True)
class ServerUse:
    """CPU seconds of the server, commands (those within scripts, too) and scripts, since its start."""

    cpu: float
    commands: int
    scripts: int

    @classmethod
    def of(cls, client: redis.Redis) -> "ServerUse":
        info: dict[str, Any] = client.info("cpu") | client.info("commandstats")
        calls = {name: stat["calls"] for name, stat in info.items() if name.startswith("cmdstat_")}
        scripts = calls.pop("cmdstat_eval", 0) + calls.pop("cmdstat_evalsha", 0)
        del calls["cmdstat_info"]
        return cls(info["used_cpu_user"] + info["used_cpu_sys"], sum(calls.values()), scripts)

    def __sub__(self, before: "ServerUse") -> "ServerUse":
        return ServerUse(self.cpu - before.cpu, self.commands - before.commands, self.scripts - before.scripts)
