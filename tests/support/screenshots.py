"""Draw the screenshots of the README: `python -m tests.support.screenshots DIR [SECONDS]`.

They show a real fleet: a Valkey, five workers with the agent, generated media of every kind, and `watch`. One worker is
cordoned, one is killed, and tasks of all priorities wait; for `doctor` some things are broken. The fleet works for
SECONDS (30) first, which fills the sparklines. Each screenshot is the output of a command: `stats --live` writes its
own with --svg, the others are drawn as in a terminal.
"""

import json
import subprocess
import sys
from pathlib import Path
from time import sleep

from rich.text import Text

from morag_queue.local.cluster import Cluster
from morag_queue.local.media import make_media
from morag_queue.view.svg import svg
from tests.support.terminal import Terminal

WORKERS = {
    "worker-gpu-1": "gpu", "worker-gpu-2": "gpu", "worker-hybrid-1": "hybrid", "worker-cpu-1": "cpu",
    "worker-cpu-2": "cpu",
}  # fmt: skip
PRIORITIES = ("NORMAL", "BATCH", "LOW", "HIGH", "URGENT")
COMMAND = [sys.executable, "-m", "morag_queue"]
SIZE = (110, 32)


def run(cluster: Cluster, *args: str) -> str:
    done = subprocess.run([*COMMAND, *args], env={**cluster.env}, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{args} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def in_terminal(cluster: Cluster, path: Path, *args: str) -> None:
    """Save the output of a command in a terminal."""
    terminal = Terminal([*COMMAND, *args], cluster.env, SIZE)
    terminal.wait()
    shown = Text.from_ansi(terminal.drawn.replace("\r\n", "\n").rstrip())
    terminal.close()
    path.write_text(svg(shown, f"morag-queue {' '.join(args)}", SIZE[0], SIZE[1]), encoding="utf-8")
    print(f"wrote {path}")


def live(cluster: Cluster, path: Path, columns: int, rows: int) -> None:
    env = {**cluster.env, "COLUMNS": str(columns), "LINES": str(rows)}
    subprocess.run(
        [*COMMAND, "stats", "--live", "--count", "1", "--svg", str(path.resolve())], env=env, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def work(cluster: Cluster) -> None:
    """Start five workers, submit tasks, and cordon, reprioritize and pause as an operator would."""
    for worker, capability in WORKERS.items():
        cluster.start_worker(worker, capability, wait=False)
    cluster.wait_for(*WORKERS)
    media = cluster.dir / "media"
    make_media(media)
    for n, priority in enumerate(PRIORITIES):
        seconds = f"simulate_seconds={1.5 * (n + 1)}"
        run(cluster, "submit", "-q", "--recursive", str(media), "--priority", priority, "--option", seconds)
    run(cluster, "cordon", "worker-cpu-2", "--reason", "new disks")
    run(
        cluster,
        "task",
        "prio",
        "HIGH",
        "--queue",
        "gpu_fallback",
        "--priority",
        "LOW",
        "--yes",
        "--reason",
        "due today",
    )
    run(cluster, "pause", "cpu_batch", "--reason", "backup window")


def break_things(cluster: Cluster) -> None:
    """Break what `doctor` should find."""
    cluster.redis.config_set("appendonly", "no")
    cluster.redis.config_set("maxmemory-policy", "allkeys-lru")
    cluster.redis.config_set("maxmemory", "2gb")
    cluster.redis.lpush("cpu_standard:3", "sent by an app with another separator")
    cluster.redis.set("mq:cache", "another's")


def main(directory: str, seconds: str = "30") -> int:
    out = Path(directory)
    out.mkdir(parents=True, exist_ok=True)
    with Cluster(persist=True, env={"LOGNAME": "ann"}) as cluster:
        work(cluster)
        watch = subprocess.Popen([*COMMAND, "watch", "-q"], env=cluster.env, stdout=subprocess.DEVNULL)
        try:
            sleep(float(seconds))
            cluster.kill("worker-gpu-2")
            sleep(8)  # until the watch has failed over its tasks
            waiting = run(cluster, "tasks", "--lines", "--state", "queued", "--queue", "gpu_priority", "--limit", "30")
            task_id = json.loads(waiting.splitlines()[-1])["task_id"]
            live(cluster, out / "stats-live.svg", 160, 24)
            live(cluster, out / "stats-live-80x24.svg", 80, 24)
            in_terminal(cluster, out / "stats.svg", "stats")
            in_terminal(cluster, out / "task-why.svg", "task", "why", task_id)
            in_terminal(cluster, out / "tasks.svg", "tasks", "--limit", "12")
            in_terminal(cluster, out / "journal.svg", "journal", "ls")
            break_things(cluster)
            in_terminal(cluster, out / "doctor.svg", "doctor")
        finally:
            watch.terminate()
            watch.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
