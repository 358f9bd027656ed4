"""`doctor`: findings, exit status and layout."""

import pytest


@pytest.fixture
def doctor(mq, valkey):
    return lambda *args, **options: mq("doctor", *args, env={"REDIS_URL": valkey}, **options)


def test_doctor_exits_with_0_on_warnings_and_prints_all_fields(doctor):
    warning, *hints = doctor("--json").json["findings"]
    assert [hint["message"].partition(":")[0] for hint in hints] == [
        "no worker has registered here", "no watch has led this fleet within the last day",
    ]  # fmt: skip
    assert set(warning) == {"code", "severity", "subject", "message", "remedy"}
    assert (warning["code"], warning["severity"]) == ("NO_APPEND_ONLY_FILE", "warning")
    doctor("--strict", status=1)


def test_doctor_exits_with_1_on_an_error_and_lists_it_first(doctor, client):
    client.set("cpu_standard", "x")
    result = doctor(status=1)
    assert result.out.startswith("error    WRONG_KEY_TYPE  cpu_standard\n         the key cpu_standard is a string")
    assert result.out.endswith("\n1 error, 1 warning, 2 hints\n")


def test_doctor_samples_a_large_fleet_says_so_and_still_checks_all_keys_of_known_names(doctor, client, sim_fleet):
    sim_fleet.fill(f"task-{n}" for n in range(100))
    client.mset({f"mq:task:old-{n}": "{}" for n in range(25_000)})
    client.set("cpu_batch\x06\x163", "not a list")
    client.set("mq:ids:f0", "not a list")
    client.lpush("gpu_fallback|4", "other separator")
    total = client.dbsize()
    result = doctor("--json", status=1).json
    sampled = (result["sampled_keys"], result["total_keys"], result["sampled_messages"], result["waiting_messages"])
    assert (20_000 <= sampled[0] < 21_000, sampled[1:]) == (True, (total, 40, 100))
    errors = {(one["code"], one["subject"]) for one in result["findings"] if one["severity"] == "error"}
    assert {
        ("WRONG_KEY_TYPE", "cpu_batch\x06\x163"),
        ("WRONG_KEY_TYPE", "mq:ids:f0"),
        ("SEPARATOR_DIFFERS", "gpu_fallback"),
    } <= errors
    assert doctor(status=1).out.splitlines()[-2:] == [
        "Sampled 40 of 100 waiting messages.",
        f"Scanned {sampled[0]:,} of {total:,} keys for unknown ones; those with known names were all checked.",
    ]


def test_doctor_lists_what_to_do_before_an_uninstall_and_says_when_nothing_is_left(doctor, client):
    assert doctor("--leaving").out == "Plain Celery workers find everything: morag-queue can be uninstalled.\n"
    client.lpush("cpu_standard", "x")
    assert doctor("--leaving", status=1).out.startswith("error    QUEUE_WITHOUT_WORKER  cpu_standard\n")


def test_doctor_escapes_hostile_names_and_wraps_long_findings(doctor, client):
    client.set("mq:\x1b[2J[bold]x\n", 1)
    lines = doctor(terminal=True, status=0).out.splitlines()
    text = "\n".join(lines)
    assert r"mq:\x1b[2J[bold]x\n" in text
    assert all(len(line) == len(line.rstrip()) for line in doctor().out.splitlines())


def test_doctor_exits_with_69_if_the_broker_is_unreachable(mq):
    mq("doctor", status=69, env={"REDIS_URL": "redis://127.0.0.1:1/0"})
