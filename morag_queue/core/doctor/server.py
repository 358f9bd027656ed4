"""The server: fit for a broker, with room, kept on disk, and this login allowed to use it."""

from collections.abc import Iterator

from .facts import Facts, Permissions, Server
from .finding import Code, Finding, error, info, span, warning

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
_NAMES = {"redis": "Redis", "valkey": "Valkey"}
FULL, NEARLY_FULL = 0.95, 0.8
"""Shares of the memory from which on it is an error, a warning."""
FLEET = "the fleet"
"""What can be looked at least of all without: who works, what waits."""
SKEW_S, BAD_SKEW_S = 2.0, 30.0
"""Seconds between two clocks: a beat apart is a warning; figures land in the wrong minute and ETAs are off anyway."""


def check_server(facts: Facts) -> Iterator[Finding]:
    if facts.server is not None:
        yield from _kind(facts.server)
        yield from _memory(facts.server)
        yield from _disk(facts.server)
    if facts.permissions is not None:
        yield from _permissions(facts.permissions)


def check_clocks(facts: Facts) -> Iterator[Finding]:
    """This machine's clock and the workers', against the server's."""
    if abs(facts.clock_offset) >= SKEW_S:
        yield _skew("this machine", -facts.clock_offset)
    for view in facts.snapshot.workers:
        beat = view.beat
        if beat is not None and not beat.stopped and beat.clock is not None and abs(beat.clock - beat.at) >= SKEW_S:
            yield _skew(view.worker, beat.clock - beat.at)


def check_unread(facts: Facts) -> Iterator[Finding]:
    for what, why in facts.unread.items():
        remedy = "give the login of the URL the right to it, or ask who runs the server"
        judge = error if what == FLEET else info
        yield judge(Code.NOT_CHECKED, what, f"{what} could not be looked at: {why}", remedy)


def _kind(server: Server) -> Iterator[Finding]:
    name = f"{_NAMES.get(server.kind, server.kind)} {server.version}"
    oldest = OLDEST.get(server.kind)
    if oldest is None:
        remedy = "use Redis or Valkey"
        yield warning(Code.SERVER_UNTESTED, name, f"{name} is neither Redis nor Valkey: nothing is known of it", remedy)
    elif _version(server.version) < oldest:
        least = ".".join(map(str, oldest))
        yield error(
            Code.SERVER_TOO_OLD, name, f"the server is {name}; the claim and the moves need {least} or newer",
            f"upgrade it to {_NAMES[server.kind]} {least} or newer",
        )  # fmt: skip
    if server.mode == "cluster":
        message = "the server is in cluster mode: kombu has no transport for it, and scripts cannot span its slots"
        yield error(Code.CLUSTER_MODE, name, message, "use one server, or Sentinel for availability")
    if server.role != "master":
        message = "this server is a replica: nothing can be written to it, and a worker that pops here loses a message"
        yield error(Code.READ_ONLY_REPLICA, name, message, "use the URL of the primary, or sentinel://")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _memory(server: Server) -> Iterator[Finding]:
    if server.eviction != "noeviction":
        bad = server.eviction.startswith("allkeys") and server.limit_bytes > 0
        what = "queued tasks" if server.eviction.startswith("allkeys") else "records of ended tasks and figures"
        when = "when memory is short" if server.limit_bytes else "as soon as a maxmemory is set"
        yield (error if bad else warning)(
            Code.KEYS_CAN_BE_EVICTED, "maxmemory-policy",
            f"the eviction policy is {server.eviction}: {when}, the server deletes {what}",
            "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file",
        )  # fmt: skip
    limit = server.limit_bytes or server.memory_bytes
    share = server.used_bytes / limit if limit else 0.0
    if share >= NEARLY_FULL:
        of = "its maxmemory" if server.limit_bytes else "the machine's memory"
        message = f"the server uses {share:.0%} of {of} ({_megabytes(server.used_bytes)} of {_megabytes(limit)}): "
        message += "when it is full nothing can be queued or finished"
        remedy = "give it more memory, or let the queues shrink: morag-queue stats tells which is the longest"
        yield (error if share >= FULL else warning)(Code.MEMORY_LOW, "memory", message, remedy)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _disk(server: Server) -> Iterator[Finding]:
    if not server.is_append_only:
        lost = {
            True: "what was queued since its last snapshot is lost",
            False: "everything is lost, for it takes no snapshots either",
            None: "what was queued since its last snapshot, if it takes any, is lost",
        }[server.saves]
        yield warning(
            Code.NO_APPEND_ONLY_FILE, "appendonly", f"the server keeps no append-only file: when it ends, {lost}",
            "CONFIG SET appendonly yes, and the same in its configuration file",
        )  # fmt: skip
    disk = {"append-only file": server.append_works, "snapshot": server.save_works}
    failing = [name for name, works in disk.items() if not works]
    if failing:
        yield error(
            Code.SAVING_FAILS, "disk",
            f"the server's last {' and '.join(failing)} could not be written: it may refuse every change (MISCONF)",
            "look into the server's log; free space on its disk, or make its directory writable",
        )  # fmt: skip


def _permissions(permissions: Permissions) -> Iterator[Finding]:
    if permissions.commands:
        grant = " ".join(f"+{name.replace(' ', '|')}" for name in permissions.commands)
        yield error(
            Code.RIGHTS_MISSING, permissions.user,
            f"the login {permissions.user} may not use {', '.join(name.upper() for name in permissions.commands)}",
            f"ACL SETUSER {permissions.user} {grant}",
        )  # fmt: skip
    if permissions.keys:
        yield error(
            Code.RIGHTS_MISSING, permissions.user,
            f"the login {permissions.user} may not touch the keys {', '.join(permissions.keys)}",
            f"ACL SETUSER {permissions.user} " + " ".join(f"~{key}" for key in permissions.keys),
        )  # fmt: skip


def _skew(whose: str, ahead_s: float) -> Finding:
    way = "ahead of" if ahead_s > 0 else "behind"
    return (error if abs(ahead_s) >= BAD_SKEW_S else warning)(
        Code.CLOCK_SKEW, whose,
        f"the clock of {whose} is {span(abs(ahead_s))} {way} the server's: ETAs and times are off",
        "set it by NTP (chronyc tracking, timedatectl)",
    )  # fmt: skip
