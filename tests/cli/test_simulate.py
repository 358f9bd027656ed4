"""`simulate`."""

import json

import jsonschema
import pytest

from morag_queue.view.answers import answer_of
from morag_queue.view.schema import json_schema

SMALL = ("simulate", "--fleet", "gpu=1,hybrid=1,cpu=2", "--tasks", "120")


def test_the_policies_are_compared_without_a_broker(mq):
    answer = mq(*SMALL, "--json").json
    jsonschema.validate(answer, json_schema(answer_of("simulate"), strict=True))
    assert (answer["tasks"], answer["workers"], answer["slots"], answer["order"]) == (120, 4, 13, "strict")
    assert [one["policy"] for one in answer["policies"]] == ["static", "seed", "balanced"]
    assert {one["lost"] for one in answer["policies"]} == {0}


def test_the_table_shows_each_policy_and_the_waits_of_each_priority(mq):
    shown = mq(*SMALL, "--policy", "static,balanced").out
    first, *rest = shown.splitlines()
    assert first == "120 tasks on 4 workers with 13 slots, order strict, seed 1"
    assert "POLICY" in rest[1]
    assert [line.split()[0] for line in rest[2:4]] == ["static", "balanced"]
    assert [line.split()[0] for line in rest if line.split()[:1] and line.split()[0].isupper()][1:6] == [
        "PRIORITY", "URGENT", "HIGH", "NORMAL", "LOW",
    ]  # fmt: skip


def test_a_written_workload_gives_the_same_figures_when_it_is_read(mq, tmp_path):
    made = mq(*SMALL, "--write-workload", "w.csv", "--json").json["policies"]
    assert len((tmp_path / "w.csv").read_text().splitlines()) == 121
    read = mq("simulate", "--fleet", "gpu=1,hybrid=1,cpu=2", "--workload", "w.csv", "--json").json["policies"]
    assert read == made


def test_files_of_a_fleet_and_of_outages_are_read(mq, tmp_path):
    (tmp_path / "f.json").write_text(json.dumps([
        {"worker": "gpu-1", "capability": "gpu", "slots": 2}, {"worker": "cpu-1", "capability": "hybrid", "slots": 3},
    ]))  # fmt: skip
    (tmp_path / "o.csv").write_text("worker,down_s,up_s\ngpu-1,100,4000\n")
    answer = mq(
        "simulate", "--fleet", "f.json", "--failures", "o.csv", "--tasks", "60", "--order", "weighted", "--json"
    )
    assert (answer.json["slots"], answer.json["order"]) == (5, "weighted")
    assert all(one["restarted"] for one in answer.json["policies"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "best"], "unknown policy best: use some of static, seed, balanced"),
        (["--order", "fifo"], "unknown order 'fifo': use strict or weighted"),
        (["--fleet", "gpu=x"], "--fleet 'gpu=x': write counts as in gpu=2,hybrid=2,cpu=4, or the name of a JSON file"),
        (["--fleet", "gpu=0"], "--fleet has no worker: write counts as in gpu=2,hybrid=2,cpu=4"),
        (["--fleet", "none.json"], "none.json: No such file or directory"),
        (["--workload", "none.csv"], "none.csv: No such file or directory"),
        (["--workload", "w.csv", "--seed", "1"], "--seed shape a generated workload; with --workload leave them out"),
        (["--load", "0"], "--load 0: write a share above 0, up to 10"),
        (["--noise", "9"], "--noise 9: write a number from 0 to 3"),
        (["--arrivals", "daily"], "unknown arrivals 'daily': use poisson or bursts"),
        (["--fleet", "cpu=2"], "and the fleet has no GPU worker: add one"),
    ],
)
def test_wrong_input_is_refused_with_what_to_write(mq, options, message):
    refused = mq("simulate", *options, status=2)
    assert message in refused.err
    assert refused.out == ""
