"""`route_task`: MoRAG's tasks sent with Celery are routed as by `submit`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from morag_queue import route_task
from morag_queue.service import producer
from tests.support.simulated_fleet import SimulatedFleet

FILE_TASK = "morag.worker.process_file_task"
WEB_TASK = "morag.worker.process_web_page_task"
PAGE = "https://example.org/page"
FILM = "https://example.org/film.mp4"


@pytest.fixture
def app(valkey: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """Return an app with the router, on an empty broker."""
    monkeypatch.setenv("REDIS_URL", valkey)
    producer._producers.clear()
    with Celery("producer", broker=valkey, set_as_current=False) as app:
        app.conf.task_routes = (route_task,)
        app.conf.broker_transport_options = {"priority_steps": list(range(10))}
        yield app
    producer._producers.clear()


def waiting(sim_fleet: SimulatedFleet) -> dict[str, dict[str, Any]]:
    """Return the only message of each Redis list."""
    return {
        key.decode().partition("\x06\x16")[0]: json.loads(sim_fleet.client.lindex(key, 0))
        for key in sim_fleet.client.scan_iter(_type="list")
    }


def test_a_task_of_morag_goes_to_the_queue_that_meets_its_requirements(app: Celery, sim_fleet: SimulatedFleet) -> None:
    app.send_task(WEB_TASK, (PAGE, {}))
    app.send_task("morag.worker.process_url_task", (FILM, "video", {}))

    messages = waiting(sim_fleet)
    assert set(messages) == {"cpu_standard", "gpu_priority"}
    assert messages["gpu_priority"]["headers"]["morag_queue"]["priority"] == "HIGH"
    assert messages["gpu_priority"]["properties"]["delivery_info"]["exchange"] == ""


def test_a_header_sets_priority_and_requirement_and_other_headers_are_kept(
    app: Celery, sim_fleet: SimulatedFleet
) -> None:
    headers = {"morag_queue": {"priority": "BATCH", "requires": "cpu"}, "trace": "abc"}
    app.send_task(WEB_TASK, (PAGE, {}), headers=headers)

    message = waiting(sim_fleet)["cpu_batch"]
    assert message["headers"]["trace"] == "abc"
    assert message["headers"]["morag_queue"] == message["headers"]["morag_queue"] | headers["morag_queue"]


@pytest.mark.parametrize("options", [{"queue": "mine"}, {"exchange": "mine"}, {"routing_key": "mine"}])
def test_a_call_that_names_its_queue_is_not_routed(options: dict[str, str]) -> None:
    assert route_task(WEB_TASK, (PAGE, {}), {}, options) is None


def test_a_foreign_task_is_not_routed(app: Celery) -> None:
    assert route_task("other.task", (PAGE,), {}, {}) is None


@pytest.mark.parametrize(
    ("args", "headers"),
    [(("/no/such/file.pdf", "document", {}), {}), ((FILM, "video", {}), {"morag_queue": {"priority": "SOONEST"}})],
)
def test_a_call_that_cannot_be_routed_is_left_to_celery_with_a_warning(
    args: tuple[Any, ...], headers: dict[str, Any], app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    assert route_task(FILE_TASK, args, {}, {"headers": headers}) is None
    assert f"{FILE_TASK} was not routed; Celery's default routing applies" in caplog.text


def test_a_file_is_read_again_when_it_has_changed(app: Celery, tmp_path: Path) -> None:
    def minutes() -> float:
        route = route_task(FILE_TASK, (str(report), "document", {}), {}, {})
        assert route is not None
        return float(route["headers"]["morag_queue"]["estimated_minutes"])

    report = tmp_path / "report.txt"
    report.write_text("x" * 3_000)
    assert (minutes(), minutes()) == (0.1, 0.1)
    report.write_text("x" * 30_000)
    assert minutes() == 1.0
    report.unlink()
    assert route_task(FILE_TASK, (str(report), "document", {}), {}, {}) is None


def test_a_call_is_routed_by_its_requirements_if_the_broker_is_unreachable(
    app: Celery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    producer._producers.clear()

    route = route_task(WEB_TASK, (PAGE, {}), {}, {})

    assert route is not None
    assert route["queue"].name == "cpu_standard"
    assert "routing without the state of the fleet" in caplog.text


@pytest.mark.parametrize(
    ("app_steps", "setting", "level"),
    [
        (list(range(10)), "auto", {"URGENT": 0, "HIGH": 1, "NORMAL": 4, "LOW": 6, "BATCH": 8}),
        (None, "auto", {"URGENT": 0, "HIGH": 3, "NORMAL": 6, "LOW": 9, "BATCH": 9}),
        (list(range(10)), "0,3,6,9", {"URGENT": 0, "HIGH": 3, "NORMAL": 6, "LOW": 9, "BATCH": 9}),
        (None, "[0, 5, 9]", {"URGENT": 0, "HIGH": 9, "NORMAL": 9, "LOW": 9, "BATCH": 9}),
    ],
)
def test_the_levels_are_those_at_which_the_app_publishes_and_the_fleet_polls(
    app_steps: list[int] | None,
    setting: str,
    level: dict[str, int],
    app: Celery,
    sim_fleet: SimulatedFleet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MORAG_QUEUE_BROKER__PRIORITY_STEPS", setting)
    app.conf.broker_transport_options = {"priority_steps": app_steps} if app_steps else {}

    @app.task(name=WEB_TASK, shared=False)  # type: ignore[untyped-decorator]
    def web(url: str, options: dict[str, Any]) -> None: ...

    for priority in level:
        web.apply_async((PAGE, {}), headers={"morag_queue": {"priority": priority}})
    lists = [key.decode() for key in sim_fleet.client.scan_iter(_type="list")]
    found = {
        json.loads(text)["headers"]["morag_queue"]["priority"]: int(key.partition("\x06\x16")[2] or 0)
        for key in lists
        for text in sim_fleet.client.lrange(key, 0, -1)
    }
    assert found == level
