"""`config init` and `config check`, and --profile."""

import pytest

BROKEN = """\
redis_uri = "redis://x"

[profiles.dev]
namespce = "x"
"""


def test_init_writes_a_file_that_check_accepts(mq, tmp_path):
    assert mq("config", "init").out == "Wrote morag-queue.toml; edit it, then run: morag-queue config check\n"
    file = tmp_path / "morag-queue.toml"
    assert "#max_retries = 3  # requeues from dead workers before a task is quarantined\n" in file.read_text()
    assert mq("config", "check").out == f"file: {file}\nok: 0 settings differ from the defaults\n"


def test_init_overwrites_a_file_only_with_force(mq, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text("mine")
    err = mq("config", "init", "own.toml", status=5).err
    assert err == ("error: own.toml exists and was not changed: choose another file, or add --force to overwrite it\n")
    assert file.read_text() == "mine"
    assert mq("config", "init", "own.toml", "--force", "--json").json == {"file": str(file)}
    assert file.read_text().startswith("# Settings of morag-queue.")
    assert (
        "cannot write none/own.toml: No such file or directory" in mq("config", "init", "none/own.toml", status=1).err
    )


def test_check_says_what_was_read(mq, tmp_path):
    file = tmp_path / "morag-queue.toml"
    file.write_text("namespace = 'x'\n[profiles.prod]\nredis_url = 'redis://u:hunter2@prod'\n[profiles.dev]\n")
    env = {"MORAG_QUEUE_PROFILE": "prod", "MORAG_QUEUE_POLICY__MAX_RETRIES": "4", "REDIS_URL": "redis://plain"}
    assert mq("config", "check", env=env).out.splitlines() == [
        f"file: {file}",
        "profile: prod",
        "environment: MORAG_QUEUE_POLICY__MAX_RETRIES, MORAG_QUEUE_PROFILE",
        "not used: 1 profile (dev); --profile NAME chooses one",
        "ok: 3 settings differ from the defaults",
    ]
    assert mq("config", "check", "--profile", "dev", "--json").json == {
        "file": str(file),
        "profile": "dev",
        "unused_profiles": ["prod"],
        "variables": [],
        "changed": {"namespace": f"{file}, line 1"},
    }


def test_check_without_a_file_says_how_to_write_one(mq):
    assert mq("config", "check").out == (
        "file: none found; `morag-queue config init` writes one\nok: 0 settings differ from the defaults\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BROKEN, 'unknown setting "redis_uri" in {file}, line 1: did you mean "redis_url"?'),
        (BROKEN.partition("\n")[2], 'unknown setting "namespce" in profile dev ({file}, line 3): did you mean'),
    ],
    ids=["base", "profile that is not chosen"],
)
def test_check_exits_with_2_and_names_the_line(mq, tmp_path, text, message):
    file = tmp_path / "morag-queue.toml"
    file.write_text(text)
    assert f"error: {message.format(file=file)}" in mq("config", "check", status=2).err


def test_a_profile_selects_the_fleet_and_show_names_it(mq, valkey, tmp_path):
    file = tmp_path / "morag-queue.toml"
    file.write_text(f"redis_url = 'redis://127.0.0.1:1/0'\n[profiles.here]\nredis_url = '{valkey}'\n")
    mq("stats", status=69)
    assert mq("stats", "--profile", "here", "--json").json["workers"] == []
    shown = mq("config", "show", "--profile", "here", "--json").json
    assert shown["profile"] == "here"
    assert shown["settings"]["redis_url"] == {"value": valkey, "origin": f"profile here ({file}, line 3)"}
    err = mq("stats", "--profile", "there", status=2).err
    assert err == f"error: no profile 'there' in {file}: it has here\n"
