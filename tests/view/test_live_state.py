"""The keys of the live screen and their effects."""

import pytest

from morag_queue.cli.terminal import parse_keys
from morag_queue.view.live_state import COLUMN_HELP, HELP, LiveState, Sort, on_key


def pressed(*typed, **state):
    now = LiveState(**state)
    for key in typed:
        now = on_key(now, key)
    return now


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["q"], {"quit": True}),
        (["p"], {"paused": True}),
        ([" ", "p"], {}),
        (["s"], {"sort": Sort.STATUS}),
        (["s"] * len(Sort), {}),
        (["?"], {"help": True}),
        (["?", "x"], {}),
        (["?", "q"], {"quit": True}),
        (["/", "q", "s", " "], {"typing": True, "filter": "qs "}),
        (["/", "a", "backspace", "backspace", "b", "enter", "p"], {"filter": "b", "paused": True}),
        (["/", "a", "escape"], {}),
        (["/", "a", "enter", "escape"], {}),
        (["/", "up", "\x00"], {"typing": True}),
        (["down", "j", "page down", "up"], {"offset": 11}),
        (["down", "home"], {}),
        (["up"], {}),
        (["x", "enter"], {}),
    ],
)
def test_each_key_changes_the_state(typed, expected):
    assert pressed(*typed) == LiveState(**expected)


def test_sorting_and_filtering_scroll_to_the_top():
    assert pressed("s", offset=7).offset == 0
    assert pressed("/", "a", offset=7).offset == 0


def test_the_help_names_every_kind_of_key():
    assert [name for name, _ in HELP] == ["q", "p or space", "s", "/", "↑ ↓ PgUp PgDn", "?"]


def test_the_help_of_columns_gives_the_period_of_each_figure():
    assert dict(COLUMN_HELP)["IN/M, OUT/M"] == "tasks queued and ended per minute, in the last five minutes"
    assert max(len(meaning) for _, meaning in (*HELP, *COLUMN_HELP)) <= 62, "whole at 80 columns"


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("ab", ["a", "b"]),
        ("\x1b", ["escape"]),
        ("\x1b[A\x1b[6~q", ["up", "page down", "q"]),
        ("\x1bOB\r\x7f", ["down", "enter", "backspace"]),
        ("\x1b[24~x", ["x"]),
        ("\x1b[", []),
        ("ü日", ["ü", "日"]),
    ],
)
def test_terminal_input_is_split_into_keys(typed, names):
    assert list(parse_keys(typed)) == names
