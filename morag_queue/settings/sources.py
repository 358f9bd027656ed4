"""Load the settings from their sources, in order of precedence:

    flag  >  MORAG_QUEUE_*  >  chosen profile  >  REDIS_URL (the URL only)  >  one file  >  default

A profile is a table `[profiles.NAME]` of the file, chosen with --profile or MORAG_QUEUE_PROFILE.
The file is `--config FILE`, else `./morag-queue.toml`, else `$XDG_CONFIG_HOME/morag-queue/config.toml`. Two underscores
separate the parts of a key in the environment: MORAG_QUEUE_QUEUES__GPU_PRIORITY__MAX_TASKS_PER_WORKER. An empty
variable counts as unset. The environment and the working directory are passed as arguments.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from morag_queue.core.setting import Table, checked
from morag_queue.errors import SettingsError

from .locations import PREFIX, PROFILE_VARIABLE, find_file, variable
from .model import Settings
from .urls import MASK, mask_url

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings, the origin of each dotted key, the TOML file that was read, and the profiles in it."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None = None
    profile: str | None = None
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Value:
    """A value that is not the default. `origin` is for display: a flag, a variable, or a file and line."""

    value: Any
    origin: str


def load(flags: Mapping[str, Any], env: Mapping[str, str], cwd: Path) -> LoadedSettings:
    """Load the settings from all sources.

    `flags` maps dotted keys to values, or to None if the flag was not given; its `config` is the file to read, its
    `profile` the profile to choose. Raises SettingsError with a line for each unknown key, invalid value or profile
    that does not exist, and for a file that cannot be read.
    """
    file = find_file(flags.get("config"), env, cwd)
    text, table = ("", {}) if file is None else _read(file)
    profiles = table.pop("profiles", {})
    profile = flags.get("profile") or env.get(PROFILE_VARIABLE) or None
    problems: list[str] = []
    given = dict(_values(Settings(), table, "", lambda key: f"{file}{_line(text, key)}", problems))
    if env.get("REDIS_URL"):
        given["redis_url"] = _Value(env["REDIS_URL"], "REDIS_URL")
    if profile is not None:
        chosen = _profile(profile, profiles, file)
        given.update(
            _values(
                Settings(), chosen, "",
                lambda key: f"profile {profile} ({file}{_line(text, f'profiles.{profile}.{key}')})", problems,
            )
        )  # fmt: skip
    given.update(_from_environment(env, problems))
    for key, value in flags.items():
        if value is not None and key not in ("config", "profile"):
            given[key] = _Value(value, f"--{key.rpartition('.')[2].replace('_', '-')}")
    origins = {key: given[key].origin if key in given else DEFAULT for key, _ in leaves(Settings())}
    return LoadedSettings(_validate(given, problems), origins, file, profile, tuple(profiles))


def leaves(table: Table, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each dotted key of a table with its value, in the order of the table."""
    for name, value in vars(table).items():
        if isinstance(value, Table):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def mask_secrets(key: str, value: Any) -> Any:
    """Replace passwords in URLs, and values of keys named like secrets, by ***."""
    if isinstance(value, dict):
        return {name: mask_secrets(name, item) for name, item in value.items()}
    if re.search(r"password|secret|token", key.rpartition(".")[2]):
        return MASK
    if not isinstance(value, str):
        return value
    return mask_url("%20".join(value.split()) if "://" in value else value)  # one word, also with blanks in a password


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a settings file and its content; `profiles` in it is a table of tables."""
    import tomllib

    try:
        text = path.read_bytes().decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    profiles = table.get("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(profile, dict) for profile in profiles.values()):
        raise SettingsError(f'"profiles" in {path}{_line(text, "profiles")} should hold tables: [profiles.NAME]')
    return text, table


def _profile(name: str, profiles: Mapping[str, Any], file: Path | None) -> Mapping[str, Any]:
    if name in profiles:
        chosen: Mapping[str, Any] = profiles[name]
        return chosen
    if file is None:
        raise SettingsError(f"no profile {name!r}: no settings file was found; `morag-queue config init` writes one")
    known = f"it has {', '.join(sorted(profiles))}" if profiles else f"it has none; add a table [profiles.{name}]"
    raise SettingsError(f"no profile {name!r} in {file}: {known}")


def _values(
    model: Table, table: Mapping[str, Any], prefix: str, origin: Callable[[str], str], problems: list[str]
) -> Iterator[tuple[str, _Value]]:
    """Yield the values of a table, and append what is wrong with its keys to `problems`."""
    for name, value in table.items():
        key = prefix + name
        if name not in vars(model):
            problems.append(f'unknown setting "{key}" in {origin(key)}{_hint(key, _quote)}')
            continue
        default = getattr(model, name)
        if not isinstance(default, Table):
            yield key, _Value(value, origin(key))
        elif isinstance(value, dict):
            yield from _values(default, value, f"{key}.", origin, problems)
        else:
            problems.append(f'"{key}" in {origin(key)} should be a table: [{key}]')


def _from_environment(env: Mapping[str, str], problems: list[str]) -> Iterator[tuple[str, _Value]]:
    known = dict(leaves(Settings()))
    for name in sorted(env):
        if not name.startswith(PREFIX) or not env[name] or name == PROFILE_VARIABLE:
            continue
        key = name.removeprefix(PREFIX).lower().replace("__", ".")
        if key not in known:
            problems.append(f"unknown setting {name} in the environment{_hint(key, variable)}")
            continue
        yield key, _Value(_parse(env[name], known[key], name), name)


def _parse(text: str, default: Any, name: str) -> Any:
    """Parse a list (`a,b` or JSON) or a table (JSON); leave any other text to the check."""
    if not isinstance(default, (tuple, dict)):
        return text
    if isinstance(default, tuple) and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",")]
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not valid JSON: {error}") from error


def _validate(given: Mapping[str, _Value], problems: list[str]) -> Settings:
    """Return the settings. Raises SettingsError with `problems` and what is wrong with the values."""
    settings = _with_values(Settings(), given, "", problems)
    if problems:
        raise SettingsError(*problems)
    return settings


T = TypeVar("T", bound=Table)


def _with_values(table: T, given: Mapping[str, _Value], prefix: str, problems: list[str]) -> T:
    """Return a table with the given values, and append what is wrong with them to `problems`."""
    changes: dict[str, Any] = {}
    for field in fields(table):
        key, default = prefix + field.name, getattr(table, field.name)
        if isinstance(default, Table):
            changes[field.name] = _with_values(default, given, f"{key}.", problems)
        elif key in given:
            try:
                changes[field.name] = checked(field, given[key].value)
            except ValueError as error:
                value, origin = mask_secrets(key, given[key].value), given[key].origin
                problems.append(f"{key} = {_quote(value)} (from {origin}): {error}")
    return replace(table, **changes)


def _quote(value: Any) -> str:
    return json.dumps(value, default=str)


def _hint(key: str, spell: Callable[[str], str]) -> str:
    """Suggest the known key nearest to the whole key, else the one nearest to its last part."""
    from difflib import get_close_matches

    known = [name for name, _ in leaves(Settings())]
    tables = sorted({name.rpartition(".")[0] for name in known} - {""})
    near = get_close_matches(key, known + tables, n=1, cutoff=0.75)
    if not near:
        key_of_leaf = {name.rpartition(".")[2]: name for name in known}
        leaf = key.rpartition(".")[2]
        near = [key_of_leaf[match] for match in get_close_matches(leaf, key_of_leaf, n=1, cutoff=0.75)]
    return f": did you mean {spell(near[0])}?" if near else ': "morag-queue config show" lists every setting'


def _line(text: str, key: str) -> str:
    """Return `, line N` of a key in a TOML file; "" if the key is written in a form that this scan does not find."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = header[1].strip()
            if table == key:
                return f", line {number}"
        elif assigned := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            name = f"{table}.{assigned[1]}".lstrip(".").replace('"', "").replace("'", "")
            if name == key or name.startswith(f"{key}."):
                return f", line {number}"
    return ""
