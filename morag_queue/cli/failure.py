"""What a user is told when a command fails, and the exit status that goes with it.

The message goes to stderr. With --json, stdout still is exactly one JSON document, so that a script can parse it before
it looks at the status: `{"error": message, "exit": status}`, unless the answer was already given there. A traceback is
shown with --debug only.
"""

import json
import sys
import traceback

from typer import Abort
from typer.exceptions import TyperException

from morag_queue.errors import ExitStatus, MoragQueueError

from .context import World


def report(error: BaseException, args: list[str], world: World) -> int:
    """Tells the user; returns the exit status. Flags are read off the raw line: parsing may be what failed."""
    from morag_queue.settings import mask_url
    from morag_queue.view.text import safe

    given = args[: args.index("--")] if "--" in args else args
    message, status = explain(error, world)
    message = mask_url(message)
    lines = map(str, error.args) if isinstance(error, MoragQueueError) else message.split("\n")
    if "--debug" in given:
        world.stderr.write(mask_url("".join(traceback.format_exception(error))))
    if message:
        world.stderr.write("error: " + "\n".join(safe(mask_url(line)) for line in lines) + "\n")
    if "--json" in given and not world.answered:
        world.stdout.write(json.dumps({"error": message or "interrupted", "exit": int(status)}) + "\n")
        world.stdout.flush()
    return int(status)


def explain(error: BaseException, world: World) -> tuple[str, int]:
    """The message, empty where there is nothing to say, and the exit status of an error."""
    match error:
        case MoragQueueError():
            return str(error), error.exit_status
        case TyperException():
            return _usage(error), error.exit_code
        case KeyboardInterrupt() | Abort():
            return "", ExitStatus.INTERRUPTED
    return _of_redis(error, world) or _unexpected(error)


def _usage(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    hint = f"\nSee {context.command_path} --help" if context is not None else ""
    return error.format_message().replace("Value error, ", "", 1) + hint


def _of_redis(error: BaseException, world: World) -> tuple[str, int] | None:
    """Errors of redis-py and kombu that no broker function has translated. Neither is imported for this."""
    where = world.broker or "the broker"
    redis, kombu = sys.modules.get("redis"), sys.modules.get("kombu.exceptions")
    if kombu is not None and isinstance(error, kombu.OperationalError):
        return f"cannot reach {where}: {error}; is it running, and is --redis-url right?", ExitStatus.UNREACHABLE
    if redis is None or not isinstance(error, redis.RedisError):
        return None
    if isinstance(error, redis.AuthenticationError):
        return f"{where} refused the login: {error}; check the user and password of the URL", ExitStatus.UNREACHABLE
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return f"cannot reach {where}: {error}; is it running, and is --redis-url right?", ExitStatus.UNREACHABLE
    if isinstance(error, redis.InvalidResponse):
        return f"what answers at {where} is no Redis: {error}; check its host and port", ExitStatus.UNREACHABLE
    from morag_queue.broker.connection import remedy

    return f"{where} refused: {error}{remedy(str(error))}", ExitStatus.FAILED


def _unexpected(error: BaseException) -> tuple[str, int]:
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return what, ExitStatus.FAILED
    text = str(error)
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"unexpected: {what}\nRun it again with --debug to see where it came from", ExitStatus.FAILED
