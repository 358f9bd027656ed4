"""Where settings come from, in the order of precedence.

    flag  >  MORAG_QUEUE_*  >  REDIS_URL (the URL only)  >  one file  >  default

The file is `--config FILE`, else `./morag-queue.toml`, else `$XDG_CONFIG_HOME/morag-queue/config.toml`. A nested key
is written with two underscores in the environment: MORAG_QUEUE_QUEUES__GPU_PRIORITY__MAX_TASKS_PER_WORKER. An empty
variable counts as not set. The environment and the working directory are arguments: nothing here looks around.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from morag_queue.errors import SettingsError

from .model import Settings
from .urls import MASK, mask_url

PREFIX = "MORAG_QUEUE_"
DEFAULT = "default"

_Named = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each dotted key where its value came from; `file` is the TOML file that was read."""

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class _Given:
    """One value that somebody gave: `origin` in words for a person."""

    value: Any
    origin: str


def load(flags: Mapping[str, Any], env: Mapping[str, str], cwd: Path) -> Loaded:
    """Settings out of all sources.

    `flags` maps dotted keys to values, None for a flag that was not given; its `config` is the file to read. Raises
    SettingsError for an unknown key, a value out of its range, and a file that cannot be read.
    """
    file = _find_file(flags.get("config"), env, cwd)
    given: dict[str, _Given] = {}
    if file is not None:
        given.update(_from_file(file))
    given.update(_from_environment(env))
    for key, value in flags.items():
        if value is not None and key != "config":
            given[key] = _Given(value, f"--{key.rpartition('.')[2].replace('_', '-')}")
    origins = {key: given[key].origin if key in given else DEFAULT for key, _ in leaves(Settings())}
    return Loaded(_validated(given), origins, file)


def leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of a model with its value, in the order of the model."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def shown(key: str, value: Any) -> Any:
    """A value as it may be seen: no password of a URL, nothing of a key whose name says that it is secret."""
    if isinstance(value, dict):
        return {name: shown(name, item) for name, item in value.items()}
    if re.search(r"password|secret|token", key.rpartition(".")[2]):
        return MASK
    return mask_url(value) if isinstance(value, str) else value


def _find_file(chosen: str | Path | None, env: Mapping[str, str], cwd: Path) -> Path | None:
    if chosen is not None:
        path = cwd / chosen
        if not path.exists():
            raise SettingsError(f"--config {path}: no such file")
        return path
    home = env.get("XDG_CONFIG_HOME") or (f"{env['HOME']}/.config" if env.get("HOME") else None)
    candidates = [cwd / "morag-queue.toml", *([Path(home, "morag-queue", "config.toml")] if home else [])]
    return next((path for path in candidates if path.is_file()), None)


def _from_file(path: Path) -> Iterator[tuple[str, _Given]]:
    import tomllib

    try:
        text = path.read_bytes().decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    return _walk(Settings(), table, "", lambda key: f"{path}{_line(text, key)}")


def _walk(
    model: BaseModel, table: Mapping[str, Any], prefix: str, origin: Callable[[str], str]
) -> Iterator[tuple[str, _Given]]:
    for name, value in table.items():
        key = prefix + name
        if name not in type(model).model_fields:
            raise SettingsError(f'unknown setting "{key}" in {origin(key)}{_hint(key, _quoted)}')
        default = getattr(model, name)
        if not isinstance(default, BaseModel):
            yield key, _Given(value, origin(key))
        elif isinstance(value, dict):
            yield from _walk(default, value, f"{key}.", origin)
        else:
            raise SettingsError(f'"{key}" in {origin(key)} should be a table: [{key}]')


def _from_environment(env: Mapping[str, str]) -> Iterator[tuple[str, _Given]]:
    if env.get("REDIS_URL"):
        yield "redis_url", _Given(env["REDIS_URL"], "REDIS_URL")
    known = dict(leaves(Settings()))
    for name in sorted(env):
        if not name.startswith(PREFIX) or not env[name]:
            continue
        key = name.removeprefix(PREFIX).lower().replace("__", ".")
        if key not in known:
            raise SettingsError(f"unknown setting {name} in the environment{_hint(key, variable)}")
        yield key, _Given(_parsed(env[name], known[key], name), name)


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return PREFIX + key.upper().replace(".", "__")


def _parsed(text: str, default: Any, name: str) -> Any:
    """A list may be written `a,b`, as JSON too, a table as JSON only; pydantic reads the rest out of its text."""
    if not isinstance(default, (tuple, dict)):
        return text
    if isinstance(default, tuple) and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",")]
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not valid JSON: {error}") from error


def _validated(given: Mapping[str, _Given]) -> Settings:
    if not given:
        return Settings()
    tree: dict[str, Any] = {}
    for key, one in given.items():
        *tables, leaf = key.split(".")
        branch = tree
        for table in tables:
            branch = branch.setdefault(table, {})
        branch[leaf] = one.value
    try:
        return Settings.model_validate(_over(Settings(), tree))
    except ValidationError as error:
        raise SettingsError(*_complaints(error, given)) from None


def _over(default: BaseModel, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The default's fields with those of the tree over them, so that one key of a table overrides only itself."""
    fields = {name: getattr(default, name) for name in type(default).model_fields}
    for name, value in tree.items():
        fields[name] = _over(fields[name], value) if isinstance(fields[name], BaseModel) else value
    return fields


def _complaints(error: ValidationError, given: Mapping[str, _Given]) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"]]
        key = next(".".join(path[:n]) for n in range(len(path), 0, -1) if ".".join(path[:n]) in given)
        allowed = problem["msg"].removeprefix("Value error, ")
        allowed = re.sub(r"^(Input|String|Tuple|Dictionary) should", "it should", allowed)
        yield f"{key} = {_quoted(shown(key, given[key].value))} (from {given[key].origin}): {allowed}"


def _quoted(value: Any) -> str:
    return json.dumps(value, default=str)


def _hint(key: str, written: _Named) -> str:
    """The nearest known key, compared as a whole first, then by its last word."""
    from difflib import get_close_matches

    known = [name for name, _ in leaves(Settings())]
    tables = sorted({name.rpartition(".")[0] for name in known} - {""})
    near = get_close_matches(key, known + tables, n=1, cutoff=0.75)
    if not near:
        words = {name.rpartition(".")[2]: name for name in known}
        near = [words[word] for word in get_close_matches(key.rpartition(".")[2], words, n=1, cutoff=0.75)]
    return f": did you mean {written(near[0])}?" if near else ': "morag-queue config show" lists every setting'


def _line(text: str, key: str) -> str:
    """`, line N` of a key in a TOML file, or nothing where it is written in a way that a scan does not see."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = header[1]
            if table == key:
                return f", line {number}"
        elif assigned := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            name = f"{table}.{assigned[1]}".lstrip(".").replace('"', "").replace("'", "")
            if name == key or name.startswith(f"{key}."):
                return f", line {number}"
    return ""
