"""`stats --live`, with and without a terminal."""

import json
import os
import shlex
import signal
import sys

import pytest

from morag_queue.broker.redis import RedisBroker
from morag_queue.errors import BrokerUnreachable
from tests.support.records import register
from tests.support.terminal import Terminal

COMMAND = [sys.executable, "-m", "morag_queue", "stats", "--live", "--interval", "100ms"]
RESTORED = "\x1b[?1049l\x1b[?25h"
"""Escape codes that leave the alternate screen and show the cursor."""


@pytest.fixture
def stats(mq, valkey):
    return lambda *args, **options: mq("stats", *args, env={"REDIS_URL": valkey}, **options)


@pytest.fixture
def terminal():
    """Start a command in a terminal, by default the live view of the broker at `url`."""
    opened = []

    def start(url, argv=COMMAND, **options):
        opened.append(Terminal(argv, {"REDIS_URL": url}, **options))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_live_json_prints_one_document_per_line(stats):
    lines = stats("--live", "--json", "--interval", "100ms", "--count", "2").out.splitlines()
    assert [set(json.loads(line)) >= {"taken_at", "queues", "workers", "leader"} for line in lines] == [True, True]


def test_live_without_a_terminal_prints_a_table_per_refresh(stats):
    out = stats("--live", "--interval", "100ms", "--count", "2").out
    assert out.count("QUEUE ") == 2
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--live", "--interval", "10ms"), "--interval 0.01s is too short: use at least 0.1s"),
        (("--live", "--interval", "often"), "--interval 'often' is not a duration"),
        (("--count", "2"), "--count has no effect without --live"),
    ],
)
def test_invalid_live_options_are_wrong_usage(stats, args, message):
    assert message in stats(*args, status=2).err


def test_live_exits_with_69_if_the_broker_is_unreachable_at_the_start(mq):
    mq("stats", "--live", status=69, env={"REDIS_URL": "redis://127.0.0.1:1/0"})


def test_svg_saves_the_answer_or_the_last_live_screen(stats, tmp_path):
    for args, title in (
        (("--svg", "screen.svg"), "morag-queue&#160;stats"),
        (("--live", "--count", "1", "--svg", "screen.svg"), "morag-queue&#160;stats&#160;--live"),
    ):
        assert "wrote screen.svg" in stats(*args).err
        text = (tmp_path / "screen.svg").read_text()
        assert f">{title}</text>".replace("&#160;", " ") in text.replace("&#160;", " ")
        assert "gpu_priority" in text
        assert "url(http" not in text, "the SVG loads nothing from the network"


def test_q_quits_and_restores_the_terminal(terminal, valkey):
    live = terminal(valkey)
    assert "gpu_fallback" in live.until("q quit")
    assert not live.is_as_before, "the terminal is in cbreak mode"
    live.type("q")
    assert live.wait() == 0
    assert RESTORED in live.drawn
    assert live.is_as_before


def test_keys_sort_filter_pause_and_show_help(terminal, valkey, client):
    register(client, "worker-7")
    live = terminal(valkey)
    live.until("worker-7")
    live.type("s")
    live.until("s sort: status")
    live.type("/nob\x7f\x7fone\r")
    live.until("No worker matches 'none'.")
    live.type("\x1b")
    live.until("worker-7")
    live.type("p")
    live.until("PAUSED")
    live.type("p?")
    live.until("scroll the workers")
    live.type("xq")
    assert live.wait() == 0


def test_a_resized_window_is_redrawn_at_once(terminal, valkey):
    live = terminal(valkey, [*COMMAND[:-1], "1h"])
    assert "ALERTS" not in live.until("q quit")
    live.resize(200, 60)
    live.until("ALERTS")


def test_the_last_screen_stays_while_the_broker_is_away(terminal, make_fleet):
    fleet = make_fleet()
    live = terminal(fleet.url)
    live.until("leader:")
    fleet.server.kill()
    assert "gpu_priority" in live.until("cannot reach the broker"), "the last screen stays"
    fleet.server.start()
    live.drawn = ""
    live.until("leader:")
    live.type("q")
    assert live.wait() == 0


def test_keys_work_while_the_broker_hangs(terminal, make_fleet):
    fleet = make_fleet()
    live = terminal(fleet.url)
    live.until("leader:")
    os.kill(fleet.redis.info("server")["process_id"], signal.SIGSTOP)
    live.until("leader:")
    live.type("s")
    live.until("s sort: status")
    live.type("q")
    assert live.wait() == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_live_view_and_restores_the_terminal(terminal, valkey, number, status):
    live = terminal(valkey)
    live.until("q quit")
    live.signal(number)
    assert live.wait() == status
    assert RESTORED in live.drawn
    assert live.is_as_before


def test_ctrl_z_restores_the_terminal_and_fg_resumes_the_view(terminal, valkey):
    shell = f"{shlex.join(COMMAND)}; echo stopped with $?; stty -a; read line; fg; echo ended with $?"
    live = terminal(valkey, ["/bin/bash", "-m", "-c", shell])
    live.until("q quit")
    live.type("\x1a")
    drawn = live.until("echoke")  # the last word of `stty -a`
    assert RESTORED in drawn.split("stopped with 148")[0]
    assert " icanon" in drawn.split("stopped with 148")[1]
    live.type("\n")
    live.until("q quit")
    live.type("q")
    live.until("ended with 0")


def test_an_error_while_drawing_restores_the_terminal(terminal, valkey):
    code = (
        "import sys, morag_queue.view.live as view, morag_queue.cli as cli\n"
        "view.render = None\nsys.exit(cli.main(['stats', '--live']))"
    )
    live = terminal(valkey, [sys.executable, "-c", code])
    assert live.wait() == 1
    assert "unexpected: TypeError" in live.drawn.split(RESTORED)[1]
    assert live.is_as_before


def test_live_without_a_terminal_reports_an_outage_once_and_continues(stats, monkeypatch):
    observe, polls = RedisBroker.observe, []

    def fail_twice(broker, **options):
        polls.append(broker)
        if len(polls) in (2, 3):
            raise BrokerUnreachable("cannot reach the broker")
        return observe(broker, **options)

    monkeypatch.setattr(RedisBroker, "observe", fail_twice)
    result = stats("--live", "--json", "--interval", "100ms", "--count", "2")
    assert result.err == "cannot reach the broker; retrying every 0.1s\n"
    assert len(result.out.splitlines()) == 2
