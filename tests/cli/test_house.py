"""The door of the command line: help, version, verbs of the house, terminals and pipes."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from morag_queue.cli import VERBS
from morag_queue.cli.reference import Shell, completion_script
from morag_queue.errors import ExitStatus

ROOT = Path(__file__).parents[2]
COMPLETIONS = {Shell.BASH: "morag-queue.bash", Shell.ZSH: "_morag-queue", Shell.FISH: "morag-queue.fish"}
MODULE = [sys.executable, "-m", "morag_queue"]


def test_help_names_every_verb_and_nothing_at_all_shows_it_too(mq):
    shown = mq("--help").out
    assert all(f"  {name} " in shown for name in VERBS)
    assert mq().out == shown


def test_help_imports_no_verb_and_nothing_heavy():
    look = "import sys; from morag_queue.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stderr.split()
    heavy = {
        "pydantic",
        "rich",
        "redis",
        "celery",
        "kombu",
        *(target.partition(":")[0] for target, _ in VERBS.values()),
    }
    assert not heavy & set(loaded)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_and_the_shared_options(mq, name):
    shown = mq(name, "--help").out
    if "COMMAND [ARGS]" not in shown:
        assert all(option in shown for option in ("--json", "--no-color", "--quiet", "--debug"))


def test_the_module_runs_as_the_command_does():
    done = subprocess.run([*MODULE, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("morag-queue ")


def test_exit_codes_lists_every_status_with_its_meaning(mq):
    rows = mq("exit-codes", "--json").json["exit_codes"]
    assert {row["exit"] for row in rows} == {int(status) for status in ExitStatus}
    assert " 69  the broker cannot be reached\n" in mq("exit-codes").out


def test_config_show_tells_where_each_value_came_from_and_masks_secrets(mq, tmp_path):
    (tmp_path / "morag-queue.toml").write_text(
        '[queues.gpu_priority]\nmax_tasks_per_worker = 7\n[broker.sentinel_kwargs]\npassword = "hunter2"\n'
    )
    result = mq("config", "show", "--json", env={"REDIS_URL": "redis://u:hunter2@db/1", "MORAG_QUEUE_NAMESPACE": "x"})
    settings = result.json["settings"]
    file = f"{tmp_path}/morag-queue.toml"
    assert result.json["file"] == file
    assert settings["redis_url"] == {"value": "redis://u:***@db/1", "origin": "REDIS_URL"}
    assert settings["namespace"] == {"value": "x", "origin": "MORAG_QUEUE_NAMESPACE"}
    assert settings["queues.gpu_priority.max_tasks_per_worker"] == {"value": 7, "origin": f"{file}, line 2"}
    assert settings["broker.sentinel_kwargs"]["value"] == {"password": "***"}
    assert settings["policy.binding"] == {"value": "late", "origin": "default"}
    assert "hunter2" not in result.out


def test_config_show_prints_a_file_that_it_can_read_itself(mq, tmp_path):
    text = mq("config", "show").out
    assert tomllib.loads(text)["queues"]["gpu_priority"]["max_tasks_per_worker"] == 2
    (tmp_path / "copy.toml").write_text(text)
    again = mq("config", "show", "--config", "copy.toml", "--json").json["settings"]
    assert again["broker.sep"]["value"] == "\x06\x16"
    assert "copy.toml" in again["broker.sep"]["origin"]


def test_a_flag_stands_above_everything(mq):
    settings = mq(
        "config", "show", "--json", "--redis-url", "redis://flag", env={"MORAG_QUEUE_REDIS_URL": "redis://env"}
    ).json["settings"]
    assert settings["redis_url"] == {"value": "redis://flag", "origin": "--redis-url"}


def test_json_is_indented_on_a_terminal_and_one_line_in_a_pipe(mq):
    assert mq("exit-codes", "--json").out.count("\n") == 1
    assert mq("exit-codes", "--json", terminal=True).out.count("\n") > 10


@pytest.mark.parametrize("shell", Shell)
def test_the_completion_scripts_in_the_repository_are_what_the_command_prints(mq, shell):
    assert mq("completion", shell.value).out == completion_script(shell)
    assert (ROOT / "completions" / COMPLETIONS[shell]).read_text() == completion_script(shell)


@pytest.mark.parametrize(
    ("words", "offers"), [("morag-queue conf", "config"), ("morag-queue config show --redis", "--redis-url")]
)
def test_bash_completes_verbs_and_their_options(words, offers):
    env = {
        **os.environ,
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_MORAG_QUEUE_COMPLETE": "complete_bash",
    }
    done = subprocess.run(MODULE, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [offers]


def test_a_reader_that_goes_away_is_no_error_to_talk_about():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*MODULE, "config", "show"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_is_said_in_words():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*MODULE, "config", "show"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_a_locale_without_the_sign_costs_no_answer(tmp_path):
    (tmp_path / "morag-queue.toml").write_text('agent.location = "Köln"\n')
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*MODULE, "config", "show"], cwd=tmp_path, env=env, capture_output=True, check=True)
    assert json.dumps("Köln").encode() in done.stdout
