"""`config init|check|show`: the settings file and the settings in force."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morag_queue.errors import MoragQueueError, Refused, SettingsError

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from morag_queue.settings import LoadedSettings

_FILE = "morag-queue.toml"


@verb(uses_broker=False)
def init(
    ctx: CliContext,
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help=f"File to write.  [default: ./{_FILE}]", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a settings file with every key, its default and its meaning.

    The keys are commented out, so the file changes nothing until you edit it.
    """
    from morag_queue.settings.template import template

    shown = path or Path(_FILE)
    target = ctx.environment.cwd / shown
    if target.exists() and not force:
        raise Refused(f"{shown} exists and was not changed: choose another file, or add --force to overwrite it")
    try:
        target.write_text(template(), encoding="utf-8")
    except OSError as error:
        raise MoragQueueError(f"cannot write {shown}: {error.strerror}") from error
    ctx.emit({"file": str(target)}, lambda: f"Wrote {shown}; edit it, then run: morag-queue config check")


@verb()
def check(ctx: CliContext) -> None:
    """Check the settings file and the environment.

    Says what was read, and checks the profiles that are not chosen too. Exits with 2 and a line for each unknown key
    and wrong value.
    """
    from morag_queue.settings.sources import DEFAULT

    loaded = ctx.loaded
    _check_profiles(ctx, loaded)
    changed = {key: origin for key, origin in loaded.origins.items() if origin != DEFAULT}
    answer = {
        "file": str(loaded.file) if loaded.file else None,
        "profile": loaded.profile,
        "unused_profiles": [name for name in loaded.profiles if name != loaded.profile],
        "variables": _variables(ctx, loaded),
        "changed": changed,
    }
    ctx.emit(answer, lambda: "\n".join(_summary(answer)))


@verb()
def show(ctx: CliContext) -> None:
    """Show each setting, its value and its origin.

    Secrets are masked. The output is valid TOML: fill in the secrets to use it as a morag-queue.toml.
    """
    from morag_queue.settings.sources import leaves, mask_secrets
    from morag_queue.view.output import plain
    from morag_queue.view.text import safe

    loaded = ctx.loaded
    values = {key: plain(mask_secrets(key, value)) for key, value in leaves(loaded.settings)}
    ctx.emit(
        {
            "file": str(loaded.file) if loaded.file else None,
            "profile": loaded.profile,
            "settings": {key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()},
        },
        lambda: "\n".join(
            f"{key} = {json.dumps(value)}  # {safe(loaded.origins[key])}" for key, value in values.items()
        ),
    )


def _check_profiles(ctx: CliContext, loaded: "LoadedSettings") -> None:
    """Load each profile that is not chosen, without the environment. Raises SettingsError with all their problems."""
    from morag_queue.settings import load

    problems: list[str] = []
    for name in loaded.profiles:
        if name != loaded.profile:
            try:
                load({"config": loaded.file, "profile": name}, {}, ctx.environment.cwd)
            except SettingsError as error:
                problems += error.args
    if problems:
        raise SettingsError(*problems)


def _variables(ctx: CliContext, loaded: "LoadedSettings") -> list[str]:
    """Return the environment variables in force, and the one that chose the profile."""
    from morag_queue.settings.locations import PROFILE_VARIABLE

    variables = ctx.environment.variables
    origins = sorted({origin for origin in loaded.origins.values() if origin in variables})
    chosen = loaded.profile is not None and ctx.options.profile is None
    return [*origins, *([PROFILE_VARIABLE] if chosen else [])]


def _summary(answer: dict[str, Any]) -> Iterator[str]:
    from morag_queue.core.words import count_of
    from morag_queue.view.text import safe

    yield f"file: {safe(answer['file'] or 'none found; `morag-queue config init` writes one')}"
    if answer["profile"]:
        yield f"profile: {safe(answer['profile'])}"
    if answer["variables"]:
        yield f"environment: {', '.join(answer['variables'])}"
    if unused := answer["unused_profiles"]:
        yield f"not used: {count_of(len(unused), 'profile')} ({safe(', '.join(unused))}); --profile NAME chooses one"
    changed = len(answer["changed"])
    yield f"ok: {count_of(changed, 'setting')} {'differs' if changed == 1 else 'differ'} from the defaults"


SUBCOMMANDS = {"init": init, "check": check, "show": show}
