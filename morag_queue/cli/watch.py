"""`watch`: run the supervision loop in the foreground, under systemd, in a container or on a terminal."""

import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, UsageError
from morag_queue.watch.events import Event as WatchEvent

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from morag_queue.broker.redis import RedisBroker
    from morag_queue.watch.events import EventSink
    from morag_queue.watch.log import Log
    from morag_queue.watch.loop import LoopCallbacks
    from morag_queue.watch.metrics import LoopMetrics

_MIN_INTERVAL_S = 1.0


@verb()
def watch(
    ctx: CliContext,
    interval: Annotated[
        str | None,
        typer.Option(
            "--interval", metavar="DURATION", help="Time between turns; fleet changes trigger one immediately."
        ),
    ] = None,
    monitor_interval: Annotated[
        str, typer.Option("--monitor-interval", metavar="DURATION", help="Time between fleet summaries in the log.")
    ] = "60s",
    once: Annotated[
        bool, typer.Option("--once", help="Run one turn and exit, with 7 if another process leads.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Log planned changes without making them; needs no lease.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", metavar="N", min=0, max=65535, help="Serve Prometheus metrics on this port."),
    ] = None,
    metrics_address: Annotated[
        str, typer.Option("--metrics-address", metavar="IP", help="Address to serve metrics on.")
    ] = "127.0.0.1",
) -> ExitStatus:
    """Supervise the fleet: fail over dead workers, rebalance, prevent starvation and recover lost tasks.

    Several instances may run: one leads, and another takes over when it stops. The log on stdout has a line per change
    and regular fleet summaries: key=value on a terminal, JSON otherwise or with --json. SIGTERM and Ctrl-C
    stop the loop after the current step. Supports systemd's Type=notify and its watchdog.
    """
    from morag_queue.watch.log import Log
    from morag_queue.watch.loop import Watch

    broker = _broker(ctx, interval)
    broker.now()  # fail at once on a wrong URL; a broker that goes away later is waited for
    is_json = ctx.json or not ctx.stdout.isatty()
    log = Log(ctx.stdout, json=is_json, quiet=ctx.quiet, debug=ctx.options.debug)
    ctx.environment.has_answered = True
    notifier = SystemdNotifier(ctx.environment.variables)
    sink, callbacks = _outputs(notifier, broker, log, metrics_port, metrics_address)
    loop = Watch(
        broker, who=ctx.user, emit=sink, monitor_interval=_seconds(monitor_interval, "--monitor-interval"),
        dry_run=dry_run, callbacks=callbacks,
    )  # fmt: skip
    if once:
        loop.once()
        return ExitStatus.OK
    with _until_signal(notifier) as (stop, received):
        loop.run(stop)
    return ExitStatus.INTERRUPTED if signal.SIGINT in received else ExitStatus.OK


class SystemdNotifier:
    """Sends the state of the service to systemd, see sd_notify(3). Does nothing if NOTIFY_SOCKET is unset."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._path = variables.get("NOTIFY_SOCKET", "")
        self._has_watchdog = bool(variables.get("WATCHDOG_USEC"))
        self._ready, self._status = False, ""

    def alive(self, status: str) -> None:
        """Report readiness on the first call, the watchdog heartbeat on each, and the status when it changes."""
        fields = [] if self._ready else ["READY=1"]
        fields += ["WATCHDOG=1"] if self._has_watchdog else []
        fields += [f"STATUS={status}"] if status != self._status else []
        self._ready, self._status = True, status
        self._send(fields)

    def stopping(self) -> None:
        self._send(["STOPPING=1"])

    def _send(self, fields: list[str]) -> None:
        if not self._path or not fields:
            return
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto("\n".join(fields).encode(), address)


def _broker(ctx: CliContext, interval: str | None) -> "RedisBroker":
    """Connect with the interval of the command line in the policy, because move budgets depend on it.

    The connection is named `mq.watch`, so that CLIENT LIST shows it.
    """
    from morag_queue.broker.connection import connect
    from morag_queue.broker.redis import RedisBroker

    settings = ctx.settings
    if interval is not None:
        seconds = _seconds(interval, "--interval")
        balancing = replace(settings.policy.balancing, interval_seconds=seconds)
        settings = replace(settings, policy=replace(settings.policy, balancing=balancing))
    client = connect(settings.redis_url, settings.broker, name="mq.watch")
    return RedisBroker(settings, client)


def _seconds(text: str, option: str) -> float:
    from morag_queue.view.text import parse_duration

    seconds = parse_duration(text, option)
    if seconds < _MIN_INTERVAL_S:
        raise UsageError(f"{option} {text!r} is too short: use at least {_MIN_INTERVAL_S:g}s")
    return seconds


def _outputs(
    notifier: SystemdNotifier, broker: "RedisBroker", log: "Log", port: int | None, address: str
) -> "tuple[EventSink, LoopCallbacks]":
    """Return the event sink and the loop callbacks for the log, systemd and, if a port is given, Prometheus."""
    from morag_queue.watch.loop import LoopCallbacks

    def notify(leads: bool) -> None:
        notifier.alive("leading the fleet" if leads else "standing by")

    if port is None:
        return log, LoopCallbacks(on_alive=notify)
    metrics, url = _metrics(broker, port, address)
    log(WatchEvent.METRICS, url=url)

    def notify_and_count(leads: bool) -> None:
        notify(leads)
        metrics.on_alive(leads)

    return metrics.counting(log), LoopCallbacks(on_turn=metrics.on_turn, on_alive=notify_and_count)


def _metrics(broker: "RedisBroker", port: int, address: str) -> "tuple[LoopMetrics, str]":
    from prometheus_client import CollectorRegistry

    from morag_queue.watch.metrics import FleetCollector, LoopMetrics, serve

    registry = CollectorRegistry()
    registry.register(FleetCollector(broker))
    metrics = LoopMetrics(registry)
    try:
        return metrics, serve(registry, address, port)
    except OSError as error:
        raise UsageError(
            f"--metrics-port: cannot serve on {address}:{port}: {error.strerror or error}; choose another port"
        ) from None


@contextmanager
def _until_signal(notifier: SystemdNotifier) -> Iterator[tuple[Event, list[int]]]:
    """Yield an event that SIGTERM and SIGINT set, and the list of received signals.

    The first signal restores the previous handlers, so that a second one ends the process at once.
    """
    stop, received = Event(), list[int]()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def on_signal(number: int, _: object) -> None:
        received.append(number)
        stop.set()
        notifier.stopping()
        restore()

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield stop, received
    finally:
        restore()
