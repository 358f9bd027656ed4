"""Errors of failed commands: message and exit status."""

import sys
from pathlib import Path

import pytest

VERBS = {"fail": ("failing:fail", "Fail in a given way")}
SECRET = "redis://:hunter2@127.0.0.1:1/0"
MASKED = "redis://:***@127.0.0.1:1/0"


@pytest.fixture
def fail(mq, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield lambda *args, **options: mq("fail", *args, verbs=VERBS, **options)
    sys.modules.pop("failing", None)


@pytest.mark.parametrize(
    ("how", "status", "message"),
    [
        ("refused", 5, "error: worker-1 is the only GPU worker; --force overrides\n"),
        ("not-found", 8, "error: no worker worker-nobody\n"),
        (
            "lease-lost",
            7,
            "error: this process no longer leads the fleet: its lease expired, and later changes were rejected",
        ),
        ("unreachable", 69, f"error: cannot reach {MASKED}\n"),
        (
            "redis-down",
            69,
            f"error: cannot reach {MASKED}: Error 111 connecting to 127.0.0.1:1; check that it is running",
        ),
        (
            "redis-login",
            69,
            f"{MASKED} rejected the login: invalid username-password pair; check the user and password",
        ),
        (
            "redis-oom",
            1,
            f"{MASKED} rejected the command: OOM command not allowed; it is out of memory: raise maxmemory",
        ),
        ("redis-readonly", 1, "it is a replica: use the URL of the primary"),
        ("redis-noperm", 1, "the login of the URL lacks this right: `morag-queue acl operator` prints those"),
        ("redis-noperm-in-a-script", 1, "command; the login of the URL lacks this right: `morag-queue acl operator`"),
        ("redis-wrongtype", 1, "something else uses the same key: check the number of the database"),
        (
            "no-redis",
            69,
            f"the server at {MASKED} is not Redis: Protocol Error: "
            "b'HTTP/1.1 400 Bad Request'; check the host and port",
        ),
        ("file", 1, "error: /etc/nothing: No such file or directory\n"),
        (
            "bug",
            1,
            "error: unexpected: ZeroDivisionError: division by zero\n"
            "Run the command again with --debug to see the traceback\n",
        ),
        ("partly", 3, r"1 failed: \x07"),
        ("ctrl-c", 130, ""),
    ],
)
def test_an_error_becomes_a_message_and_its_exit_status(fail, how, status, message):
    result = fail(how, status=status, env={"REDIS_URL": SECRET})
    assert message in result.err
    assert "hunter2" not in result.err + result.out
    assert result.out == ("1 done\n" if how == "partly" else "")


def test_json_prints_an_error_as_a_document_and_as_a_message(fail):
    result = fail("refused", "--json", status=5)
    assert result.json == {"error": "worker-1 is the only GPU worker; --force overrides", "exit": 5}
    assert result.err == "error: worker-1 is the only GPU worker; --force overrides\n"
    assert fail("ctrl-c", "--json", status=130).json == {"error": "interrupted", "exit": 130}


def test_json_prints_only_the_answer_if_an_error_follows_it(fail):
    assert fail("answered", "--json", status=5).json == {"done": 1}


def test_an_error_message_escapes_foreign_text_and_keeps_its_markup(fail):
    err = fail("hostile", status=5).err
    assert err == "error: the file \\x1b[2J\\u202etxt [bold]is[/bold]\\nerror: forged\nsecond line\n"


def test_debug_shows_the_traceback_without_the_password(fail):
    err = fail("unreachable", "--debug", status=69).err
    assert "Traceback" in err
    assert "failing.py" in err
    assert "hunter2" not in err


def test_a_closed_pipe_prints_no_error(fail):
    assert fail("closed-pipe", status=1).err == ""


def test_quiet_prints_the_answer_without_notes(fail):
    assert fail("flags").err == "a note\n"
    quiet = fail("flags", "-q")
    assert (quiet.err, quiet.out) == ("", "a row\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("xyzzy",), "error: No such command 'xyzzy'.\nSee morag-queue --help\n"),
        (("statz",), "error: No such command 'statz'. Did you mean 'stats'?\nSee morag-queue --help\n"),
        (("config",), "error: Missing command.\nSee morag-queue config --help\n"),
        (("task", "shw"), "error: No such command 'shw'. Did you mean 'show'?\nSee morag-queue task --help\n"),
        (("pause",), "error: Missing argument 'Q'.\nSee morag-queue pause --help\n"),
        (("completion", "csh"), "error: Invalid value for 'SHELL': 'csh' is not one of 'bash', 'zsh', 'fish'."),
        (("\x1b[2Jx",), r"No such command '\x1b[2Jx'."),
    ],
)
def test_wrong_usage_exits_with_2_and_suggests_a_correction(mq, args, message):
    result = mq(*args, status=2)
    assert message in result.err
    assert result.out == ""


def test_an_unknown_option_exits_with_2_and_suggests_a_correction(mq):
    err = mq("exit-codes", "--jsn", status=2).err  # the versions of Typer word it differently
    assert err.startswith("error: No such option")
    assert err.index("--jsn") < err.index("--json")


def test_wrong_usage_with_json_prints_a_document(mq):
    assert mq("config", "show", "--nope", "--json", status=2).json["exit"] == 2
