"""The metrics page answers whatever is in the keys, with as many series as before."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from morag_queue.watch.metrics import FleetCollector

from .places import spoilers
from .trial import make_spoiled

KINDS = ("a string", "a list", "word", "escapes", "not utf-8", "list of lists", "huge number", "deep object", "10 MB")


@pytest.fixture(scope="module")
def spoiled():
    with Sandbox() as sandbox:
        server = Server(sandbox)
        with make_spoiled(server.url) as fleet:
            yield fleet
        server.stop()


def page(spoiled):
    registry = CollectorRegistry()
    registry.register(FleetCollector(spoiled.fleet.broker))
    return generate_latest(registry).decode()


def test_the_metrics_page_answers_with_garbage_in_any_key_and_has_no_new_series(spoiled):
    spoiled.restore()
    usual = len(page(spoiled).splitlines())
    for place in spoiled.places:
        spoiled.restore()
        for kind, spoil in list(spoilers(spoiled.fleet.client, place, large=True)):
            if kind in KINDS:
                spoiled.restore()
                spoil(spoiled.fleet.client)
                text = page(spoiled)
                assert "morag_queue_up 1.0" in text, (place.name, kind)
                assert len(text.splitlines()) <= usual, (place.name, kind)


def test_registrations_that_cannot_be_read_make_no_series(spoiled):
    spoiled.restore()
    usual = len(page(spoiled).splitlines())
    spoiled.fleet.client.hset(spoiled.fleet.keys.workers, mapping={f"w{n}\x1b": "x" for n in range(2000)})
    assert len(page(spoiled).splitlines()) == usual
