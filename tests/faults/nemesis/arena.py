"""The fleet of a run: workers and two `watch` under a supervisor, the commands of operators, and the faults."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, RLock, Thread

import redis

from morag_queue.broker.keys import Keys
from morag_queue.local.waiting import DeadlineError, until
from tests.support.agent_fleet import AgentFleet
from tests.support.commands import Command
from tests.support.watch_process import WatchProcess, start_watch

from .history import History
from .schedule import WORKERS, Step

CONF = {
    "broker_transport_options": {"priority_steps": list(range(10))},
    "task_annotations": {"t.later": {"rate_limit": "4/s"}},
    "worker_prefetch_multiplier": 2,
    # Celery fails a task whose result it cannot store: only chords have results.
    "task_ignore_result": True,
    "result_backend_always_retry": True,
}
ENV = {
    "MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "0.5",
    "MORAG_QUEUE_POLICY__MAX_RETRIES": "1000",  # no task is to blame for the deaths of its workers
}
WATCHES = 2
SUPERVISE_SECONDS = 0.3
COMMAND_SECONDS = 60.0
"""A command that takes longer is a finding."""

_OPEN = {"queued", "running", "retrying"}

FENCE_SECONDS = 3.0
"""How long it takes a worker to hear that it was fenced, and to connect again."""

STATUSES = {0, 1, 3, 5, 6, 7, 8, 69, -signal.SIGKILL}
"""Exit codes that commands may have under these faults; 1 must explain itself."""


class Arena:
    """Starts everything, and starts again what has exited, until `close`."""

    def __init__(self, fleet: AgentFleet, history: History) -> None:
        self.fleet, self.history = fleet, history
        self.watches: list[WatchProcess] = []
        self.statuses: dict[int, int] = {}
        self._running: list[Command] = []
        self._lock, self._closed = RLock(), Event()
        self._admin = redis.Redis.from_url(fleet.url, decode_responses=True, client_name="nemesis")
        self._is_down = False
        self._supervise()
        fleet.wait_for(*WORKERS)
        until(lambda: any(watch.events("leading") for watch in self.watches), 30, "no watch leads")
        self._supervisor = Thread(target=self._keep_supervising, daemon=True)
        self._supervisor.start()

    # -- the supervisor

    def _keep_supervising(self) -> None:
        while not self._closed.wait(SUPERVISE_SECONDS):
            with self._lock:
                self._supervise()

    def _supervise(self) -> None:
        for name, (capability, pool, concurrency) in WORKERS.items():
            process = self.fleet.workers.get(name)
            if process is not None and (code := process.poll()) is not None:
                self.history.note("worker-exited", worker=name, code=code)
                if code:  # else a warm shutdown, which runs nothing twice
                    self.history.hit("exit", name)
                self.fleet.workers.pop(name)
                process = None
            if process is None:
                self.fleet.start_worker(name, capability, options=("-P", pool), concurrency=concurrency, wait=False)
        for number, watch in enumerate(self.watches):
            if (code := watch.process.poll()) is not None:
                self.history.note("watch-exited", watch=watch.name, code=code)
                if code not in (-signal.SIGKILL, 69):  # 69: it was started while the server was down
                    self.history.problem(f"{watch.name} exited with {code}")
                self.watches[number] = self._start_watch(watch.name)
        while len(self.watches) < WATCHES:
            self.watches.append(self._start_watch(f"watch-{len(self.watches) + 1}"))

    def _start_watch(self, name: str) -> WatchProcess:
        return start_watch(self.fleet, "--interval", "1s", "--json", name=name)

    # -- commands

    def run(self, who: str, *words: str) -> Command:
        """Run a command of ours as this user; return it once it has ended."""
        command = Command(words, {**self.fleet.env, **self.fleet.sandbox.environment, "USER": who}, self.fleet.dir)
        began = time.time()
        self._running.append(command)
        try:
            status = command.process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            self.history.problem(f"{' '.join(words)} took longer than {COMMAND_SECONDS:g} s")
            command.process.kill()
            status = command.process.wait()
        finally:
            self._running.remove(command)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.history.note(
            "command", who=who, words=words, status=status, seconds=round(time.time() - began, 2),
            errors=command.stderr[-600:],
        )  # fmt: skip
        if status not in STATUSES or "unexpected" in command.stderr:
            self.history.problem(f"{' '.join(words)} exited with {status}: {command.stderr[-300:]}")
        return command

    def command(self, step: Step) -> None:
        words = [*step.what.split(), *map(str, step.args), *(() if step.what == "stats" else ("--yes",))]
        if "--force" not in words:
            status = self.run(step.who, *words).process.returncode
            if step.what == "task cancel" and status not in (1, 5, 8):
                self.history.targets.add(str(step.args[0]))
            return
        hit = self.history.hit(f"forced {step.what}", str(step.args[0]), seconds=None)
        self.run(step.who, *words)
        hit.ended = time.time() + FENCE_SECONDS

    # -- faults

    def inject(self, step: Step) -> None:
        with suppress(redis.RedisError, ProcessLookupError, FileNotFoundError), self._lock:
            getattr(self, "_" + step.what.replace("-", "_"))(*step.args)

    def _kill_worker(self, name: str) -> None:
        if name in self.fleet.workers:
            self.history.hit("worker killed", name)
            self.fleet.kill(name)

    def _term_worker(self, name: str) -> None:
        if name in self.fleet.workers:
            self.history.note("fault", fault="worker terminated", worker=name)  # it explains no second start
            self.fleet.workers[name].terminate()

    def _stop_worker(self, name: str) -> None:
        if name in self.fleet.workers:
            self.history.hit("worker stopped", name, seconds=None)
            self.fleet.kill(name, signal.SIGSTOP)

    def _continue_worker(self, name: str) -> None:
        self.history.end("worker stopped", name)
        if name in self.fleet.workers:
            self.fleet.kill(name, signal.SIGCONT)

    def _kill_child(self, name: str, number: int) -> None:
        if name in self.fleet.workers and (children := _pool(self.fleet.workers[name].pid)):
            pid = children[number % len(children)]
            self.history.hit("pool process killed", name, pid=pid)
            os.kill(pid, signal.SIGKILL)

    def _kill_watch(self, number: int) -> None:
        self.history.note("fault", fault="watch killed", watch=number)
        self.watches[number].signal(signal.SIGKILL)

    def _kill_command(self, number: int) -> None:
        if running := list(self._running):
            command = running[number % len(running)]
            self.history.note("fault", fault="command killed", words=command.args)
            command.process.kill()

    def _kill_clients(self, name: str) -> None:
        record = self._admin.hget(self.fleet.keys.workers, name)
        if record:
            self.history.hit("connections closed", name, seconds=1)
            wanted = json.loads(record)["client_name"]
            for client in self._admin.client_list():
                if client["name"] == wanted:
                    self._admin.client_kill_filter(_id=client["id"])

    def _kill_all_clients(self) -> None:
        self.history.hit("all connections closed", seconds=1)
        self._admin.client_kill_filter(_type="normal", skipme=True)

    def _pause_clients(self, milliseconds: int) -> None:
        self.history.hit("clients paused", seconds=milliseconds / 1000 + 1)
        self._admin.client_pause(milliseconds)

    def _flush_scripts(self) -> None:
        self.history.note("fault", fault="scripts flushed")
        self._admin.script_flush()

    def _kill_server(self) -> None:
        if not self._is_down:
            self._is_down = True
            self.history.hit("server killed", seconds=None)
            self.fleet.server.kill()

    def _start_server(self) -> None:
        if self._is_down:
            self.fleet.server.start()
            self._is_down = False
            self.history.end("server killed")
            self.history.hit("server killed", seconds=2)  # until all have connected again

    def _fill_server(self) -> None:
        self.history.hit("server full", seconds=None)
        self._admin.config_set("maxmemory", "1mb")

    def _empty_server(self) -> None:
        if not self._is_down:
            self._admin.config_set("maxmemory", "0")
        self.history.end("server full")
        self.history.hit("server full", seconds=2)

    # -- the end

    def quiet(self) -> None:
        """End all faults, and return everything to service."""
        with self._lock:
            self._start_server()
            self._empty_server()
            self._admin.client_unpause()
            for name in WORKERS:
                self._continue_worker(name)
        self.history.note("quiet")
        for lane in self._admin.smembers(self.fleet.keys.paused):
            self._expect(0, "resume", str(lane), "--yes")
        for name in WORKERS:
            self._expect(0, "uncordon", name, "--yes")

    def _expect(self, status: int, *words: str) -> None:
        command = self.run("end", *words)
        if command.process.returncode != status:
            self.history.problem(f"{' '.join(words)} exited with {command.process.returncode}: {command.stderr}")

    def settle(self, patience: float = 60) -> None:
        """Wait until nothing is left to do, or until nothing has moved for so many seconds."""

        def state() -> tuple[dict[str, list[str]], int]:
            return remains(self._admin, self.fleet.keys), len(self.fleet.events())

        last, since = state(), time.monotonic()
        while any(last[0].values()) and time.monotonic() - since < patience:
            time.sleep(0.2)
            if (now := state()) != last:
                last, since = now, time.monotonic()
        with suppress(DeadlineError):
            until(lambda: len(self.fleet.redis.hkeys(self.fleet.keys.workers)) >= len(WORKERS), 10, "")

    def close(self) -> None:
        self._closed.set()
        self._supervisor.join()
        self._admin.close()


def remains(client: redis.Redis, keys: Keys) -> dict[str, list[str]]:
    """What is left on the server: messages in lanes, unacked ones, holders, and open ledger records."""
    lanes = [str(key) for key in client.scan_iter(count=1000, _type="list") if not str(key).startswith("mq:")]
    records = {key: client.get(key) for key in client.scan_iter(match=keys.task("*"), count=1000)}
    return {
        "messages": [f"{lane}: {str(raw)[:300]}" for lane in lanes for raw in client.lrange(lane, 0, -1)],
        "unacked": [str(tag) for tag in (*client.hkeys(keys.unacked), *client.zrange(keys.unacked_index, 0, -1))],
        "holders": list(map(str, client.hkeys(keys.held))),
        "open records": [f"{key!s}: {text!s}" for key, text in records.items() if text and _state(str(text)) in _OPEN],
    }


def _state(record: str) -> str:
    return str(json.loads(record).get("state"))


def _pool(pid: int) -> list[int]:
    """The processes of the pool of a worker, without helpers of multiprocessing."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [int(child) for child in children if b"tracker" not in Path(f"/proc/{child}/cmdline").read_bytes()]
