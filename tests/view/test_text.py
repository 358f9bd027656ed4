"""Escaping hostile text, parsing and formatting durations, short numbers."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_queue.errors import UsageError
from morag_queue.view.text import (
    format_duration,
    format_minutes,
    local_time,
    more_line,
    parse_duration,
    safe,
    short,
    short_ids,
)
from tests.view.live_frames import NOON


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bericht über Köln 日本.pdf", "Bericht über Köln 日本.pdf"),
        ("[bold red]x[/]", "[bold red]x[/]"),
        ("\x1b[2Jx", r"\x1b[2Jx"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("a\nb\r\tc\x00", r"a\nb\r\tc\x00"),
        ("caf\udce9", r"caf\udce9"),
        ("\u200b\ufeff\u2028", r"\u200b\ufeff\u2028"),
        (b"x", "b'x'"),
    ],
)
def test_characters_that_do_not_print_are_shown_as_escapes(text, expected):
    assert safe(text) == expected


@given(st.text(st.characters(), max_size=300), st.integers(1, 80))
def test_safe_text_has_no_control_or_format_characters(text, limit):
    for shown in (safe(text), safe(text, limit)):
        assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert len(safe(text, limit)) <= limit


def test_a_very_long_text_is_cut_in_the_middle():
    assert safe("/data/" + "x" * 1_000_000 + "/report.pdf", 24) == "/data/xxxxxx…/report.pdf"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("1d", 86400),
        (" 2S ", 2),
        ("0s", 0),
    ],
)
def test_parse_duration_returns_seconds(text, seconds):
    assert parse_duration(text, "--deadline") == seconds


@pytest.mark.parametrize(
    "text", ["soon", "", "30", "-5s", "5 m", "1h30", "s", "٣s" + "x", "5y", "9" * 400 + "h", "1e3s"]
)
def test_parse_duration_names_the_option_and_gives_examples(text):
    with pytest.raises(UsageError, match=r"^--deadline .*30s, 5m"):
        parse_duration(text, "--deadline")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "–"), (float("nan"), "–"), (float("inf"), "∞"), (0, "0s"), (0.0004, "0ms"), (0.85, "850ms"),
        (0.9999, "1s"),
        (4.24, "4.2s"), (9.97, "10s"), (59.6, "1m"), (200, "3m 20s"), (3600, "1h"), (3899, "1h 4m"), (86399, "23h 59m"),
        (86399.9, "1d"), (183_600, "2d 3h"), (-90, "-1m 30s"),
    ],
)  # fmt: skip
def test_format_duration_uses_at_most_two_units(seconds, expected):
    assert format_duration(seconds) == expected


def test_minutes_are_formatted_as_durations():
    assert format_minutes(1.5) == "1m 30s"
    assert format_minutes(None) == "–"


@given(st.floats(0, 3e8))
def test_every_duration_fits_in_nine_characters(seconds):
    assert len(format_duration(seconds)) <= 9


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"), (0.42, "0.4"), (7, "7"), (9.99, "10"), (999, "999"), (999.6, "1.0k"), (1234, "1.2k"), (9949, "9.9k"),
        (9951, "10k"), (12_400, "12k"), (999_600, "1.0M"), (3_400_000, "3.4M"), (2e9, "2.0G"),
    ],
)  # fmt: skip
def test_short_numbers_take_at_most_four_characters(value, expected):
    assert short(value) == expected


def test_uuids_are_shortened_to_a_prefix():
    assert short_ids("task 027b6dfe-1111-4222-8333-444455556666, 027b6dfe-1") == "task 027b6dfe, 027b6dfe-1"
    assert short_ids("x027b6dfe-1111-4222-8333-444455556666") == "x027b6dfe-1111-4222-8333-444455556666"


@pytest.mark.parametrize(
    ("zone", "at", "expected"),
    [
        ("UTC", NOON, "14:13:20"),
        ("UTC", NOON - 86_400, "2026-09-20 14:13:20"),
        ("Asia/Tokyo", NOON, "23:13:20"),
        ("Asia/Tokyo", NOON + 3600, "2026-09-22 00:13:20"),
        ("America/New_York", NOON + 0.9, "10:13:20"),
        ("UTC", 0.0, "–"),
        ("UTC", None, "–"),
        ("UTC", 1e18, "–"),
    ],
)
def test_a_time_is_shown_in_the_users_zone_with_the_date_only_on_other_days(set_zone, zone, at, expected):
    set_zone(zone)
    assert local_time(at, NOON) == expected


def test_the_line_below_a_truncated_list_counts_what_it_omits():
    assert more_line(2) == "… and 2 more; --json lists them all"
    assert more_line(1, "worker") == "… and 1 more worker; --json lists it"
