"""A verb that fails in a given way, for test_failures.py."""

import os
from typing import Annotated

import redis
import typer

from morag_queue.cli.context import CliContext
from morag_queue.cli.options import verb
from morag_queue.errors import BrokerUnreachable, ExitStatus, LeaseLost, NotFound, Refused

RAISES = {
    "refused": Refused("worker-1 is the only GPU worker; --force overrides"),
    "not-found": NotFound("no worker worker-nobody"),
    "lease-lost": LeaseLost(),
    "unreachable": BrokerUnreachable("cannot reach redis://:hunter2@127.0.0.1:1/0"),
    "redis-down": redis.ConnectionError("Error 111 connecting to 127.0.0.1:1"),
    "redis-login": redis.AuthenticationError("invalid username-password pair"),
    "redis-oom": redis.OutOfMemoryError("OOM command not allowed"),
    "redis-readonly": redis.ReadOnlyError("READONLY You can't write against a read only replica."),
    "redis-noperm": redis.exceptions.NoPermissionError("NOPERM this user has no permissions"),
    "redis-noperm-in-a-script": redis.ResponseError("The user executing the script can't run this command"),
    "redis-wrongtype": redis.ResponseError("WRONGTYPE Operation against a key"),
    "no-redis": redis.InvalidResponse("Protocol Error: b'HTTP/1.1 400 Bad Request'"),
    "file": FileNotFoundError(2, "No such file or directory", "/etc/nothing"),
    "bug": ZeroDivisionError("division by zero"),
    "hostile": Refused("the file \x1b[2J\u202etxt [bold]is[/bold]\nerror: forged", "second line"),
    "ctrl-c": KeyboardInterrupt(),
    "closed-pipe": BrokenPipeError(32, "Broken pipe"),
}


@verb()
def fail(ctx: CliContext, how: Annotated[str, typer.Argument()]) -> ExitStatus:
    """Fail in the given way."""
    assert ctx.settings.redis_url
    if how == "partly":
        ctx.emit({"done": 1}, lambda: "1 done")
        ctx.warn("1 failed: \x07")
        return ExitStatus.PARTIAL
    if how == "answered":
        ctx.emit({"done": 1}, lambda: "1 done")
        raise Refused("too late")
    if how == "flags":
        ctx.note("a note")
        ctx.emit({"dry_run": ctx.options.dry_run, "pid": os.getpid()}, lambda: "a row")
        return ExitStatus.OK
    raise RAISES[how]
