"""`acl`: print the rights that a login of each role needs on the server."""

from dataclasses import asdict
from typing import Annotated

import typer

from morag_queue.core.enums import AclRole
from morag_queue.errors import UsageError

from .context import CliContext
from .options import verb


@verb()
def acl(
    ctx: CliContext,
    role: Annotated[AclRole, typer.Argument(metavar="ROLE", help="viewer, operator, producer, worker or watch.")],
    user: Annotated[
        str, typer.Option("--user", metavar="NAME", help="Print the whole command that creates this login.")
    ] = "",
    no_eval: Annotated[
        bool, typer.Option("--no-eval", help="Deny EVAL and SCRIPT LOAD, for a fleet on which `watch` runs.")
    ] = False,
) -> None:
    """Print the rules of ACL SETUSER for a login, for Redis 7 and Valkey.

    A viewer may run what only reads; an operator, every command but `watch`; a producer, `submit` and tasks routed by
    `route_task`. The rules are those of the namespace and the key prefix in the settings; they reset earlier rights.

    With --no-eval, only the login of `watch` may send texts of scripts: it loads those of all roles, at its start and
    after a restart of the server; until then the others are refused.
    """
    from morag_queue.broker.roles import rights

    if any(one.isspace() or not one.isprintable() for one in user):
        raise UsageError(f"{user!r} cannot be the name of a login: it has a blank; choose another --user")
    granted = rights(role, ctx.settings, no_eval=no_eval)
    line = " ".join(granted.rules)
    if user:
        line = f"ACL SETUSER {user} on {line}"
    ctx.emit(
        {**asdict(granted), "rules": granted.rules, "user": user or None, "command": line if user else None},
        lambda: line,
    )
    if user:
        ctx.note("the login has no password yet: add `>password` after `on`, and send the line with valkey-cli")
