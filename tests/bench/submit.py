"""Submitting: one file, a directory of small files, and many rows, against scripts that call `send_task`."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from morag_queue.local import formats
from tests.support.fleet import Fleet
from tests.support.simulated_fleet import SimulatedFleet

from .process import MORAG_QUEUE, answer, seconds
from .table import Measured, Row, Subject

SEND_ONE = """
import os, sys
from celery import Celery
app = Celery("x", broker=os.environ["REDIS_URL"])
app.send_task("morag.worker.process_file_task", [sys.argv[1], "document", {}], queue="yard", ignore_result=True)
"""
SEND_DIRECTORY = """
import os, sys
from celery import Celery
app = Celery("x", broker=os.environ["REDIS_URL"])
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(folder, name)
        os.stat(path)
        app.send_task("morag.worker.process_file_task", [path, "document", {}], queue="yard", ignore_result=True)
"""
SEND_LOOP = """
import json, os, sys, time
from celery import Celery
app = Celery("x", broker=os.environ["REDIS_URL"])
def send(number):
    app.send_task("morag.worker.process_file_task", ["/data/f%d" % number, "document", {}], queue="yard", priority=5)
send(0)
began = time.perf_counter()
for number in range(int(sys.argv[1])):
    send(number)
print(json.dumps(time.perf_counter() - began))
"""
FILES, ROWS, LOOP = 5_000, 20_000, 2_000
PEER = "a `send_task` script"


def fleet_with_workers(fleet: Fleet) -> None:
    """Register five workers on an empty server."""
    fleet.redis.flushall()
    sim_fleet = SimulatedFleet(fleet.url)
    for number in range(4):
        sim_fleet.join(f"worker-cpu-{number}", slots=2)
    sim_fleet.join("worker-gpu-0", "gpu", slots=1)
    sim_fleet.client.close()


def one() -> Iterator[Measured]:
    with Fleet() as fleet:
        path = fleet.dir / "report.txt"
        path.write_text("MoRAG " * 300)
        while True:
            fleet_with_workers(fleet)
            ours = seconds([MORAG_QUEUE, "submit", str(path)], fleet.env, fleet.dir)
            script = seconds([sys.executable, "-c", SEND_ONE, str(path)], fleet.env, fleet.dir)
            yield {"submit-one": (1000 * ours, 1000 * script)}


def directory() -> Iterator[Measured]:
    with Fleet() as fleet:
        inbox = fleet.dir / "inbox"
        write_small_files(inbox)
        while True:
            fleet_with_workers(fleet)
            ours = seconds([MORAG_QUEUE, "submit", "--recursive", "--quiet", str(inbox)], fleet.env, fleet.dir)
            script = seconds([sys.executable, "-c", SEND_DIRECTORY, str(inbox)], fleet.env, fleet.dir)
            yield {"submit-dir": (ours, script)}


def write_small_files(inbox: Path) -> None:
    """Texts, pictures, sounds and PDFs of a few KB each."""
    inbox.mkdir()
    patterns = {suffix: inbox / f"pattern.{suffix}" for suffix in ("txt", "png", "wav", "pdf")}
    patterns["txt"].write_text("MoRAG " * 400)
    formats.write_png(patterns["png"], 64, 48, 7)
    formats.write_wav(patterns["wav"], 0.2, 440.0)
    formats.write_pdf(patterns["pdf"], ["One page of words."])
    for number in range(FILES - len(patterns)):
        suffix = list(patterns)[number % len(patterns)]
        shutil.copy(patterns[suffix], inbox / f"file-{number:05d}.{suffix}")


def bulk() -> Iterator[Measured]:
    with Fleet() as fleet:
        path = fleet.dir / "report.txt"
        path.write_text("MoRAG " * 300)
        row = {"source": str(path), "content_type": "document"}
        lines = "".join(json.dumps({**row, "options": {"tag": number}}) + "\n" for number in range(ROWS))
        while True:
            fleet_with_workers(fleet)
            command = [MORAG_QUEUE, "submit", "--from", "-", "--quiet", "--json"]
            ours = seconds(command, fleet.env, fleet.dir, stdin=lines)
            loop = answer(SEND_LOOP, fleet.env, fleet.dir, str(LOOP))
            yield {"submit-bulk": (1000 * ours / ROWS, 1000 * loop / LOOP)}


SUBJECTS = (
    Subject((Row("submit-one", "`submit` of one file, the whole command", PEER, "ms", bar=1.1),), one, count=9),
    Subject(
        (Row("submit-dir", f"`submit --recursive`, {FILES:,} small files", f"{PEER} that stats them", "s", bar=1.0),),
        directory,
    ),
    Subject(
        (Row("submit-bulk", f"`submit --from`, one of {ROWS:,} rows", "a `send_task` loop", "ms", bar=1 / 6),), bulk
    ),
)
