"""Where settings are written down, without pydantic: its import takes longer than a completion may take."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from morag_queue.errors import SettingsError

PREFIX = "MORAG_QUEUE_"
PROFILE_VARIABLE = f"{PREFIX}PROFILE"
DEFAULT_URL = "redis://localhost:6379/0"


def find_file(chosen: str | Path | None, env: Mapping[str, str], cwd: Path) -> Path | None:
    """Return the one file with settings, None without one. Raises SettingsError if the chosen file is missing."""
    if chosen is not None:
        path = cwd / chosen
        if not path.exists():
            raise SettingsError(f"--config {path}: no such file; correct the path")
        return path
    home = env.get("XDG_CONFIG_HOME") or (f"{env['HOME']}/.config" if env.get("HOME") else None)
    candidates = [cwd / "morag-queue.toml", *([Path(home, "morag-queue", "config.toml")] if home else [])]
    return next((path for path in candidates if path.is_file()), None)


def variable(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return PREFIX + key.upper().replace(".", "__")


def unchecked_values(
    keys: Collection[str], flags: Mapping[str, str], env: Mapping[str, str], cwd: Path
) -> dict[str, Any]:
    """Return the values of dotted keys as they are written, by the precedence of `load`; keys without one are left out.

    Raises SettingsError for a chosen file that is missing, OSError and ValueError for one that cannot be read, and
    KeyError for a profile that does not exist.
    """
    file = find_file(flags.get("config"), env, cwd)
    table = {} if file is None else _read(file)
    found = _from_table(table, keys)
    if env.get("REDIS_URL"):
        found["redis_url"] = env["REDIS_URL"]
    if profile := flags.get("profile") or env.get(PROFILE_VARIABLE):
        found.update(_from_table(table["profiles"][profile], keys))
    for key in keys:
        text = env.get(variable(key))
        if text:
            found[key] = text
            if text.startswith("{"):
                with suppress(ValueError):
                    found[key] = json.loads(text)
    return found | {key: value for key, value in flags.items() if key in keys}


def _read(file: Path) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(file.read_bytes().decode())


def _from_table(table: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    found = {}
    for key in keys:
        value: Any = table
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            found[key] = value
    return found
