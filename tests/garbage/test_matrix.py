"""Garbage in every key, against every verb. A part of the matrix; `python -m tests.garbage` runs all of it."""

import pytest

from morag_queue.broker.keys import Keys
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server

from .places import ARGUMENTS, places, spoilers
from .trial import all_trials, complaints, make_spoiled

PLACES = [place.name for place in places(Keys(), ARGUMENTS)]
TRIALS = 4
"""Of each key. Each has another kind of garbage and another verb than those of the keys before."""


@pytest.fixture(scope="module")
def spoiled():
    with Sandbox() as sandbox:
        server = Server(sandbox)
        with make_spoiled(server.url) as fleet:
            yield fleet
        server.stop()


@pytest.mark.parametrize("name", PLACES)
def test_garbage_in_a_key_stops_no_verb_that_shows_and_loses_nothing(spoiled, name, tmp_path):
    spoiled.restore()
    number = PLACES.index(name)
    place = spoiled.places[number]
    kinds = list(spoilers(spoiled.fleet.client, place))
    verbs = all_trials()
    found = []
    for trial in range(number * TRIALS, number * TRIALS + TRIALS):
        kind, spoil = kinds[trial * 7 % len(kinds)]
        for verb, given in (verbs[trial % len(verbs)], ("stats", ["--json"])):
            found += complaints(spoiled, place, kind, spoil, verb, given, tmp_path)
    assert not found, "\n".join(found)


def test_stats_answers_for_every_text_in_every_key(spoiled, tmp_path):
    found = []
    for place in spoiled.places:
        spoiled.restore()
        for kind, spoil in list(spoilers(spoiled.fleet.client, place))[1:27:5]:
            found += complaints(spoiled, place, kind, spoil, "stats", [], tmp_path)
    assert not found, "\n".join(found)
