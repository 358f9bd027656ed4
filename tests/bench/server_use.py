"""What a server was used for between two moments."""

from dataclasses import dataclass
from typing import Any

import redis

from tests.support.round_trips import script_names


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


def logged_name(command: Any) -> tuple[str, bool]:
    """The name of a command of SLOWLOG, of a script its own; and whether it is a script."""
    text = command.decode(errors="replace") if isinstance(command, bytes) else str(command)
    words = text.split(" ", 2)
    if words[0].lower() in ("eval", "evalsha"):
        return script_names().get(words[1], "a script of others"), True
    return words[0].lower(), False
