"""Turn the error of a failed command into a message on stderr and an exit status.

With --json, stdout still holds exactly one JSON document, `{"error": message, "exit": status}`, unless the answer was
printed before the error. Tracebacks are shown with --debug only.
"""

import json
import sys
import traceback
from typing import Any

from morag_queue.errors import ExitStatus, MoragQueueError, missing_extra

from .context import Environment


def report(error: BaseException, args: list[str], environment: Environment) -> int:
    """Print the error and return the exit status. Flags are read from `args`, because parsing may have failed."""
    from morag_queue.settings import mask_url
    from morag_queue.view.text import safe

    flags = args[: args.index("--")] if "--" in args else args
    message, status = explain(error, environment)
    message = mask_url(message)
    lines = map(str, error.args) if isinstance(error, MoragQueueError) else message.split("\n")
    if "--debug" in flags:
        environment.stderr.write(mask_url("".join(traceback.format_exception(error))))
    if message:
        for number, line in enumerate(lines):
            environment.message(f"{'' if number else 'error: '}{safe(mask_url(line))}")
    if "--json" in flags and not environment.has_answered:
        environment.stdout.write(json.dumps({"error": message or "interrupted", "exit": int(status)}) + "\n")
        environment.stdout.flush()
    return int(status)


def explain(error: BaseException, environment: Environment) -> tuple[str, int]:
    """Return the message and the exit status. The message of an interruption is empty."""
    if isinstance(error, MoragQueueError):
        return str(error), error.exit_status
    if message := missing_extra(error):
        return message, ExitStatus.FAILED
    return _typer_error(error) or _broker_error(error, environment) or _unexpected_error(error)


def _typer_error(error: BaseException) -> tuple[str, int] | None:
    from typer import Abort, BadParameter

    if isinstance(error, KeyboardInterrupt | Abort):
        return "", ExitStatus.INTERRUPTED
    # The versions of Typer name the base class of their errors differently. Above it are Exception, BaseException and
    # object.
    base: Any = BadParameter.__mro__[-4]
    return (_usage_error(error), error.exit_code) if isinstance(error, base) else None


def _usage_error(error: Any) -> str:
    context = getattr(error, "ctx", None)
    hint = f"\nSee {context.command_path} --help" if context is not None else ""
    return str(error.format_message()).replace("Value error, ", "", 1) + hint


def _broker_error(error: BaseException, environment: Environment) -> tuple[str, int] | None:
    """Explain an error of redis-py or kombu that the broker layer did not translate. Imports neither library."""
    url = environment.broker_url or "the broker"
    redis, kombu = sys.modules.get("redis"), sys.modules.get("kombu.exceptions")
    if kombu is not None and isinstance(error, kombu.OperationalError):
        return _unreachable(url, error)
    if redis is None or not isinstance(error, redis.RedisError):
        return None
    if isinstance(error, redis.AuthenticationError):
        return f"{url} rejected the login: {error}; check the user and password in the URL", ExitStatus.UNREACHABLE
    from morag_queue.broker.connection import TLS_REMEDY, NotLoaded, is_tls, remedy

    if isinstance(error, NotLoaded):
        return f"{url} rejected the command: {error}", ExitStatus.FAILED
    if is_tls(error):
        return f"no TLS connection to {url}: {error}; {TLS_REMEDY}", ExitStatus.UNREACHABLE
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return _unreachable(url, error)
    if isinstance(error, redis.InvalidResponse):
        return f"the server at {url} is not Redis: {error}; check the host and port", ExitStatus.UNREACHABLE
    return f"{url} rejected the command: {error}{remedy(str(error))}", ExitStatus.FAILED


def _unreachable(url: str, error: BaseException) -> tuple[str, int]:
    return (
        f"cannot reach {url}: {error}; check that it is running and that --redis-url is correct",
        ExitStatus.UNREACHABLE,
    )


def _unexpected_error(error: BaseException) -> tuple[str, int]:
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return text, ExitStatus.FAILED
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"unexpected: {text}\nRun the command again with --debug to see the traceback", ExitStatus.FAILED
