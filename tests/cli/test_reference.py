"""`config show`, `exit-codes` and `completion`."""

import sys
import tomllib
from pathlib import Path

import pytest

from morag_queue.cli.completion_scripts import SCRIPTS
from morag_queue.cli.reference import Shell
from morag_queue.errors import ExitStatus

ROOT = Path(__file__).parents[2]
COMPLETIONS = {Shell.BASH: "morag-queue.bash", Shell.ZSH: "_morag-queue", Shell.FISH: "morag-queue.fish"}
MODULE = [sys.executable, "-m", "morag_queue"]


def test_exit_codes_lists_every_status_with_its_meaning(mq):
    rows = mq("exit-codes", "--json").json["exit_codes"]
    assert {row["exit"] for row in rows} == {int(status) for status in ExitStatus}
    assert " 69  the broker cannot be reached\n" in mq("exit-codes").out


def test_config_show_prints_origins_and_masks_secrets(mq, tmp_path):
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


def test_the_output_of_config_show_is_a_valid_settings_file(mq, tmp_path):
    text = mq("config", "show").out
    assert tomllib.loads(text)["queues"]["gpu_priority"]["max_tasks_per_worker"] == 2
    (tmp_path / "copy.toml").write_text(text)
    copied = mq("config", "show", "--config", "copy.toml", "--json").json["settings"]
    assert copied["broker.sep"]["value"] == "\x06\x16"
    assert "copy.toml" in copied["broker.sep"]["origin"]


def test_a_flag_overrides_an_environment_variable(mq):
    settings = mq(
        "config", "show", "--json", "--redis-url", "redis://flag", env={"MORAG_QUEUE_REDIS_URL": "redis://env"}
    ).json["settings"]
    assert settings["redis_url"] == {"value": "redis://flag", "origin": "--redis-url"}


@pytest.mark.parametrize("shell", Shell)
def test_the_completion_scripts_of_the_repository_are_up_to_date(mq, shell):
    assert mq("completion", shell.value).out == SCRIPTS[shell]
    assert (ROOT / "completions" / COMPLETIONS[shell]).read_text() == SCRIPTS[shell]
