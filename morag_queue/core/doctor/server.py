"""Checks of the server: kind and version, memory, persistence, permissions of the login, clocks."""

from collections.abc import Iterator

from morag_queue.core.words import span

from .facts import FleetFacts, Permissions, Server
from .finding import Code, Finding, error, info, warning

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}  # LMOVE needs Redis 6.2; 7.2 is the first Valkey
_NAMES = {"redis": "Redis", "valkey": "Valkey"}
FULL, NEARLY_FULL = 0.95, 0.8  # used share of the memory: error, warning
FLEET = "the fleet"  # the part of `FleetFacts.unread` without which no check of lanes and workers is possible
# Clock difference: from one heartbeat on a warning; from 30 s on counters land in the wrong minute and ETAs are wrong.
SKEW_S, BAD_SKEW_S = 2.0, 30.0


def check_server(facts: FleetFacts) -> Iterator[Finding]:
    if facts.server is not None:
        yield from _kind(facts.server)
        yield from _memory(facts.server)
        yield from _disk(facts.server)
    if facts.permissions is not None:
        yield from _permissions(facts.permissions)


def check_clocks(facts: FleetFacts) -> Iterator[Finding]:
    """Compare the clocks of this machine and of the workers with the server's."""
    if abs(facts.clock_offset) >= SKEW_S:
        yield _skew("this machine", -facts.clock_offset)
    for view in facts.snapshot.workers:
        beat = view.beat
        if beat is not None and not beat.stopped and beat.clock is not None and abs(beat.clock - beat.at) >= SKEW_S:
            yield _skew(view.worker, beat.clock - beat.at)


def check_unread(facts: FleetFacts) -> Iterator[Finding]:
    """Report every part that could not be read."""
    for part, why in facts.unread.items():
        remedy = "grant the login of the URL this right, or ask the administrator of the server"
        make = error if part == FLEET else info
        yield make(Code.NOT_CHECKED, part, f"{part} could not be read: {why}", remedy)


def _kind(server: Server) -> Iterator[Finding]:
    name = f"{_NAMES.get(server.kind, server.kind)} {server.version}"
    oldest = OLDEST.get(server.kind)
    if oldest is None:
        remedy = "use Redis or Valkey"
        yield warning(
            Code.SERVER_UNTESTED, name, f"{name} is neither Redis nor Valkey: morag-queue is not tested with it", remedy
        )
    elif _version(server.version) < oldest:
        least = ".".join(map(str, oldest))
        yield error(
            Code.SERVER_TOO_OLD, name, f"the server is {name}, but claims and moves need {least} or newer",
            f"upgrade it to {_NAMES[server.kind]} {least} or newer",
        )  # fmt: skip
    if server.mode == "cluster":
        message = "the server is in cluster mode: kombu has no transport for it, and scripts cannot span its hash slots"
        yield error(Code.CLUSTER_MODE, name, message, "use one server, or Sentinel for availability")
    if server.role != "master":
        message = "the server is a replica: it refuses writes, so nothing can be submitted or claimed"
        yield error(Code.READ_ONLY_REPLICA, name, message, "use the URL of the primary, or sentinel://")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _memory(server: Server) -> Iterator[Finding]:
    if server.eviction != "noeviction":
        bad = server.eviction.startswith("allkeys") and server.limit_bytes > 0
        what = "queued tasks" if server.eviction.startswith("allkeys") else "records of ended tasks and counters"
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
        message += "when it is full, no task can be queued or finished"
        remedy = "give it more memory, or reduce the backlog: morag-queue stats shows the longest queue"
        yield (error if share >= FULL else warning)(Code.MEMORY_LOW, "memory", message, remedy)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _disk(server: Server) -> Iterator[Finding]:
    if not server.is_append_only:
        lost = {
            True: "all changes since its last snapshot are lost",
            False: "everything is lost, since it takes no snapshots either",
            None: "all changes since its last snapshot, if it takes any, are lost",
        }[server.saves]
        yield warning(
            Code.NO_APPEND_ONLY_FILE, "appendonly", f"the server has no append-only file: when it stops, {lost}",
            "CONFIG SET appendonly yes, and the same in its configuration file",
        )  # fmt: skip
    disk = {"append-only file": server.append_works, "snapshot": server.save_works}
    failing = [name for name, works in disk.items() if not works]
    if failing:
        yield error(
            Code.SAVING_FAILS, "disk",
            f"the server's last {' and '.join(failing)} could not be written: it may refuse all writes (MISCONF)",
            "see the server's log; free space on its disk, or make its directory writable",
        )  # fmt: skip


def _permissions(permissions: Permissions) -> Iterator[Finding]:
    if permissions.only_reads:
        yield info(
            Code.RIGHTS_MISSING, permissions.user,
            f"the login {permissions.user} may only read: with it, no command can change the fleet",
            "`morag-queue acl operator` prints the rights that changes need",
        )  # fmt: skip
    elif permissions.commands:
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


def _skew(machine: str, ahead_s: float) -> Finding:
    direction = "ahead of" if ahead_s > 0 else "behind"
    return (error if abs(ahead_s) >= BAD_SKEW_S else warning)(
        Code.CLOCK_SKEW, machine,
        f"the clock of {machine} is {span(abs(ahead_s))} {direction} the server's: ETAs and reported times are wrong",
        "synchronise it by NTP (check: chronyc tracking, timedatectl)",
    )  # fmt: skip
