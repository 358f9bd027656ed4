"""Submits of many files: order, partial failures, interruption and memory, while helpers probe ahead."""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.ledger import BATCH
from morag_queue.errors import BrokerUnreachable, Interrupted
from morag_queue.operations import submit
from morag_queue.operations.submit import Submitter
from morag_queue.operations.submit_rows import Row, RowFailure
from morag_queue.settings import Settings
from tests.probe import makers
from tests.support.broker_drivers import MemoryDriver

Rows = Iterator[tuple[int, Row | RowFailure]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    top = tmp_path_factory.mktemp("files")
    return [str(makers.png(top / f"{number:03}.png", width=number + 1)) for number in range(200)]


@pytest.fixture
def driver() -> MemoryDriver:
    return MemoryDriver()


def endless(files: list[str], read: list[int]) -> Rows:
    """Rows with the ids 0, 1, 2 …; `read` gets the numbers of those that were read."""
    for number, source in enumerate(itertools.cycle(files)):
        read.append(number)
        yield number, Row(source=source, task_id=str(number))


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_row_fails_alone_and_the_order_is_kept(files: list[str], driver: MemoryDriver) -> None:
    sources = [*files[:150], "missing.png", *files[150:], *files]
    rows: list[tuple[int, Row | RowFailure]] = [(n, Row(source=source)) for n, source in enumerate(sources, 1)]
    rows.insert(100, (1000, RowFailure(1000, "", "not a JSON object")))
    report = Submitter(driver.broker, Settings()).submit(rows)
    assert [task.source for task in report.tasks] == files + files
    assert [(failure.line, failure.source) for failure in report.failed] == [(1000, ""), (151, "missing.png")]


def test_an_interrupt_stops_an_endless_stream_at_once(files: list[str], driver: MemoryDriver) -> None:
    before, read = children(), list[int]()

    def interrupt(size: int) -> None:
        if len(read) > 3 * BATCH:
            raise KeyboardInterrupt

    report = Submitter(driver.broker, Settings()).submit(endless(files, read), on_progress=interrupt)
    assert isinstance(report.broken, Interrupted)
    assert report.uncertain == []
    assert report.submitted % BATCH == 0
    assert [task.task_id for task in report.tasks] == [str(number) for number in range(report.submitted)]
    assert len(read) < report.submitted + 4000  # the rows that are probed ahead, by at most 8 helpers
    assert children() == before


def test_only_the_batch_that_was_sent_is_uncertain(
    files: list[str], driver: MemoryDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were probed ahead were not sent."""
    send, batches = driver.broker.submit, itertools.count()

    def fail_third(messages: Sequence[OutgoingMessage], *rest: Any) -> list[bool]:
        if next(batches) == 2:
            raise BrokerUnreachable("the connection was lost")
        return list(send(messages, *rest))

    monkeypatch.setattr(driver.broker, "submit", fail_third)
    report = Submitter(driver.broker, Settings()).submit(endless(files, []))
    assert isinstance(report.broken, BrokerUnreachable)
    assert report.submitted == 2 * BATCH
    assert report.uncertain == [str(number) for number in range(2 * BATCH, 3 * BATCH)]


def test_a_source_that_is_named_again_later_is_read_again(
    files: list[str], driver: MemoryDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_REMEMBERED", 10)
    rows = [(n, Row(source=source)) for n, source in enumerate(files[:25] + files[:25] + files[:2] * 20)]
    report = Submitter(driver.broker, Settings()).submit(rows)
    assert [task.source for task in report.tasks] == [row.source for _, row in rows]
