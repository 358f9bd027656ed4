"""`watch`: the loop in the foreground, for systemd, a container or a terminal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, UsageError
from morag_queue.watch.events import Event as Told

from .context import CliContext
from .options import verb
from .systemd import Notifier

if TYPE_CHECKING:
    from morag_queue.broker.redis import RedisBroker
    from morag_queue.watch.events import EventSink
    from morag_queue.watch.log import Log
    from morag_queue.watch.loop import LoopCallbacks
    from morag_queue.watch.metrics import LoopMetrics

_SHORTEST_S = 1.0


@verb()
def command(
    ctx: CliContext,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="DURATION", help="Between two turns; news call for one at once.")
    ] = None,
    monitor_interval: Annotated[
        str, typer.Option("--monitor-interval", metavar="DURATION", help="Between two lines about the whole fleet.")
    ] = "60s",
    once: Annotated[bool, typer.Option("--once", help="One turn, now; ends with 7 when someone else leads.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing. Needs no lease.")
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", metavar="N", min=0, max=65535, help="Serve Prometheus metrics.")
    ] = None,
    metrics_address: Annotated[
        str, typer.Option("--metrics-address", metavar="IP", help="Where metrics are served.")
    ] = "127.0.0.1",
) -> ExitStatus:
    """Look after the fleet: dead workers, work that waits in the wrong place, what would starve, what was lost.

    Two may run: one leads, the other takes over when it ends. Its log is on stdout, one line for what it changes and
    one a minute for the fleet: key=value on a terminal, JSON elsewhere and with --json. SIGTERM and Ctrl-C end it in
    good order. Under systemd it speaks Type=notify, with the watchdog.
    """
    from morag_queue.watch.log import Log
    from morag_queue.watch.loop import Watch

    broker = _broker(ctx, interval)
    broker.now()  # a broker that is not there, or a wrong URL, is told at once; one that goes away later is waited for
    is_json = ctx.json or not ctx.stdout.isatty()
    log = Log(ctx.stdout, json=is_json, quiet=ctx.quiet, debug=ctx.options.debug)
    ctx.world.answered = True
    notifier = Notifier(ctx.world.env)
    tell, callbacks = _outlets(notifier, broker, log, metrics_port, metrics_address)
    watch = Watch(
        broker, who=ctx.who, emit=tell, monitor_interval=_seconds(monitor_interval, "--monitor-interval"),
        dry_run=dry_run, callbacks=callbacks,
    )  # fmt: skip
    if once:
        watch.once()
        return ExitStatus.OK
    with _until_signal(notifier) as (stop, received):
        watch.run(stop)
    return ExitStatus.INTERRUPTED if signal.SIGINT in received else ExitStatus.OK


def _broker(ctx: CliContext, interval: str | None) -> "RedisBroker":
    """The broker under the name of a watch, with the interval of the command line in its policy: budgets go by it."""
    from morag_queue.broker.connection import connect
    from morag_queue.broker.redis import RedisBroker

    settings = ctx.settings
    if interval is not None:
        seconds = _seconds(interval, "--interval")
        balancing = settings.policy.balancing.model_copy(update={"interval_seconds": seconds})
        policy = settings.policy.model_copy(update={"balancing": balancing})
        settings = settings.model_copy(update={"policy": policy})
    client = connect(settings.redis_url, settings.broker, name="mq.watch")
    return RedisBroker(settings, client)


def _seconds(text: str, option: str) -> float:
    from morag_queue.view.text import parse_duration

    seconds = parse_duration(text, option)
    if seconds < _SHORTEST_S:
        raise UsageError(f"{option} {text!r} is too short: 1s at least; news call for a turn at once anyway")
    return seconds


def _outlets(
    notifier: Notifier, broker: "RedisBroker", log: "Log", port: int | None, address: str
) -> "tuple[EventSink, LoopCallbacks]":
    """Where the loop's events go, and who else hears of it: systemd, and Prometheus where a port was given."""
    from morag_queue.watch.loop import LoopCallbacks

    def alive(leads: bool) -> None:
        notifier.alive("leading the fleet" if leads else "standing by")

    if port is None:
        return log, LoopCallbacks(on_alive=alive)
    metrics, url = _metrics(broker, port, address)
    log(Told.METRICS, url=url)

    def both(leads: bool) -> None:
        alive(leads)
        metrics.on_alive(leads)

    return metrics.counting(log), LoopCallbacks(on_turn=metrics.on_turn, on_alive=both)


def _metrics(broker: "RedisBroker", port: int, address: str) -> "tuple[LoopMetrics, str]":
    from prometheus_client import CollectorRegistry

    from morag_queue.watch.metrics import FleetCollector, LoopMetrics, serve

    registry = CollectorRegistry()
    registry.register(FleetCollector(broker))
    metrics = LoopMetrics(registry)
    try:
        return metrics, serve(registry, address, port)
    except OSError as error:
        raise UsageError(f"--metrics-port: cannot serve on {address}:{port}: {error.strerror or error}") from None


@contextmanager
def _until_signal(notifier: Notifier) -> Iterator[tuple[Event, list[int]]]:
    """An event that SIGTERM and SIGINT set, and which of them came. A second one is not waited for."""
    stop, received = Event(), list[int]()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_signal(number: int, _: object) -> None:
        received.append(number)
        stop.set()
        notifier.stopping()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop, received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
