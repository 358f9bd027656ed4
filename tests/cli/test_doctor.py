"""`doctor` on the command line: its document, its status, and what a person reads."""

import pytest


@pytest.fixture
def fleet(mq, valkey):
    return lambda *args, **more: mq("doctor", *args, env={"REDIS_URL": valkey}, **more)


def test_the_document_of_the_contract_and_status_0_for_warnings(fleet):
    found, hint = fleet("--json").json["findings"]
    assert "no worker has registered here" in hint["message"]
    assert set(found) == {"code", "severity", "subject", "message", "remedy"}
    assert (found["code"], found["severity"]) == ("NO_APPEND_ONLY_FILE", "warning")
    fleet("--strict", status=1)


def test_an_error_ends_with_1_and_comes_first(fleet, client):
    client.set("cpu_standard", "x")
    result = fleet(status=1)
    assert result.out.startswith("error    WRONG_KEY_TYPE  cpu_standard\n         the key cpu_standard is a string")
    assert result.out.endswith("\n1 error, 1 warning, 1 hint\n")


def test_long_findings_are_wrapped_under_their_heading_and_hostile_names_are_harmless(fleet, client):
    client.set("mq:\x1b[2J[bold]x\n", 1)
    lines = fleet(terminal=True, status=0).out.splitlines()
    shown = "\n".join(lines)
    assert r"mq:\x1b[2J[bold]x\n" in shown
    assert all(len(line) == len(line.rstrip()) for line in fleet().out.splitlines())


def test_a_broker_that_is_not_there_ends_with_69(mq):
    mq("doctor", status=69, env={"REDIS_URL": "redis://127.0.0.1:1/0"})
