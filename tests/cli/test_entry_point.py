"""The entry point: help, start-up, output streams and encodings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from morag_queue.cli import VERBS
from morag_queue.cli.run import build_group

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "morag_queue"]


def test_help_lists_every_verb_and_is_shown_without_arguments(mq):
    out = mq("--help").out
    assert all(f"  {name} " in out for name in VERBS)
    assert mq().out == out


def test_help_imports_neither_verbs_nor_heavy_libraries():
    # Old versions of Typer import Rich themselves.
    code = (
        "import sys, typer.main; before = set(sys.modules); from morag_queue.cli import main; main(['--help']);"
        "print(*set(sys.modules) - before, file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    heavy = {
        "pydantic",
        "rich",
        "redis",
        "celery",
        "kombu",
        *(target.partition(":")[0] for target, _ in VERBS.values()),
    }
    assert not heavy & set(loaded)


NEVER = {"celery", "kombu", "amqp", "asyncio", "prometheus_client", "psutil", "structlog"}
"""What is slow to import and no verb needs that only reads or submits."""


@pytest.mark.parametrize(
    ("line", "heavy"),
    [
        ("stats --json", {"redis", "rich", "morag_queue.broker.contract", *NEVER}),
        ("cordon w1 --json", {"redis", "rich", *NEVER}),
        ("submit small.md --json", {"redis", "rich", *NEVER}),
        ("submit small.md", {"redis", *NEVER}),
        ("tasks --json", {"rich", *NEVER - {"asyncio"}}),  # redis-py imports asyncio
    ],
)
def test_a_verb_does_not_import_what_it_does_not_need(line, heavy, sim_fleet, valkey, tmp_path):
    (tmp_path / "small.md").write_text("hello")
    sim_fleet.join("w1")
    sim_fleet.broker.observe()  # the server has the script: redis-py loads it where it is missing
    code = "import sys; from morag_queue.cli import main; status = main();print(status, *sys.modules, file=sys.stderr)"
    argv, env = [sys.executable, "-c", code, *line.split()], {"PATH": os.environ["PATH"], "REDIS_URL": valkey}
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    status, *loaded = done.stderr.splitlines()[-1].split()
    assert status in ("0", "3"), done.stderr
    assert sorted(heavy & set(loaded)) == []


def commands():
    """Yield the name and the loaded command of each verb and subcommand."""
    for name, verb in build_group(VERBS).commands.items():
        loaded = verb.load()
        yield name, loaded
        for subcommand in getattr(loaded, "commands", {}).values():
            yield f"{name} {subcommand.name}", subcommand


def test_every_argument_and_option_has_a_help_text():
    undocumented = [
        (name, each.name)
        for name, command in commands()
        for each in command.params
        if not each.get_help_record(typer.Context(command))[1]
    ]
    assert undocumented == []


@pytest.mark.parametrize("name", ["", "journal", "task", "dead", "config"])
def test_help_cuts_no_summary_at_80_columns(mq, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    lines = mq(*name.split(), "--help").out.splitlines()
    assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage:")]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_the_common_options(mq, name):
    out = mq(name, "--help").out
    if "COMMAND [ARGS]" not in out:
        assert all(option in out for option in ("--json", "--no-color", "--quiet", "--debug"))


def test_the_package_can_be_run_as_a_module():
    completed = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, check=True)
    assert completed.stdout.startswith("morag-queue ")


def test_json_is_indented_only_on_a_terminal(mq):
    assert mq("exit-codes", "--json").out.count("\n") == 1
    assert mq("exit-codes", "--json", terminal=True).out.count("\n") > 10


def test_a_closed_pipe_on_stdout_prints_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    completed = subprocess.run([*MODULE, "config", "show"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (completed.returncode, completed.stderr) == (1, "")


def test_a_full_disk_is_reported_without_a_traceback():
    with open("/dev/full", "w") as full:
        completed = subprocess.run([*MODULE, "config", "show"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (completed.returncode, completed.stderr) == (1, "error: No space left on device\n")


def test_output_that_the_locale_cannot_encode_is_escaped(tmp_path):
    (tmp_path / "morag-queue.toml").write_text('agent.location = "Köln"\n')
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    completed = subprocess.run([*MODULE, "config", "show"], cwd=tmp_path, env=env, capture_output=True, check=True)
    assert json.dumps("Köln").encode() in completed.stdout


def test_messages_break_between_words_on_a_terminal_and_nowhere_in_a_pipe(mq):
    wrong = ("submit", "a", "--from", "b", "--redis-url", "http://wrong.example.org:6379/a-path-of-one-long-word-" * 2)
    err = mq(*wrong, status=2).err
    assert err.count("\n") == 1
    narrow = mq(*wrong, status=2, terminal=True, env={"COLUMNS": "40"}).err
    assert narrow.split() == err.split()
    assert all(len(line) <= 40 or " " not in line for line in narrow.splitlines())
