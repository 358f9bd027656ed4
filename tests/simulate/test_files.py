"""The files of a simulation: each mistake is named with its line, and nothing is simulated."""

from pathlib import Path

import pytest

from morag_queue.errors import UsageError
from morag_queue.simulate.files import check_runnable, read_fleet, read_outages, read_workload, write_workload
from morag_queue.simulate.generate import Arrivals, fleet_of, generate

HEADER = "arrival_s,content_type,requires,priority,true_minutes,estimated_minutes\n"
GOOD = "0,audio,gpu_preferred,HIGH,4,3\n"

WORKLOADS = {
    "": "line 1: no column arrival_s; the header is " + HEADER.strip(),
    HEADER: "no line after the header",
    "arrival_s,content_type\n0,audio\n": "line 1: no column requires",
    HEADER + "0,film,cpu,HIGH,1,1\n": "line 2: unknown content_type 'film': use one of audio, video",
    HEADER + "0,audio,tpu,HIGH,1,1\n": "line 2: unknown requires 'tpu': use one of gpu, gpu_preferred, cpu",
    HEADER + "0,audio,cpu,ASAP,1,1\n": "line 2: unknown priority 'ASAP'",
    HEADER + GOOD + "-1,audio,cpu,LOW,1,1\n": "line 3: arrival_s is '-1': write a number from 0",
    HEADER + "0,audio,cpu,LOW,nan,1\n": "line 2: true_minutes is 'nan': write a number from 0",
    HEADER + "0,audio,cpu,LOW,1,soon\n": "line 2: estimated_minutes is 'soon': write a number from 0",
    HEADER + "5,audio,cpu,LOW,1,1\n" + GOOD: "line 3: arrival_s 0 is before that of the line above: sort the file",
    HEADER + "0,audio\n": "line 2: fewer fields than columns",
}


@pytest.mark.parametrize("text", WORKLOADS)
def test_a_broken_workload_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(UsageError) as error:
        read_workload(tmp_path / "w.csv")
    assert WORKLOADS[text] in str(error.value)


FLEETS = {
    "[": "not JSON",
    "[]": "write a list of workers",
    '[{"worker": "a", "capability": "tpu", "slots": 1}]': "worker 1: unknown capability 'tpu': use one of cpu",
    '[{"worker": "a", "capability": "cpu", "slots": 0}]': "worker 1: slots is 0: write a whole number from 1",
    '[{"capability": "cpu"}]': 'worker 1: write an object with "worker", "capability" and "slots"',
    '[{"worker": "a", "capability": "cpu", "slots": 1}, {"worker": "a", "capability": "cpu", "slots": 1}]':
        "worker 2: a is there twice",
}  # fmt: skip


@pytest.mark.parametrize("text", FLEETS)
def test_a_broken_fleet_is_refused_with_its_worker(text: str, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(UsageError) as error:
        read_fleet(tmp_path / "f.json")
    assert FLEETS[text] in str(error.value)


OUTAGES = {
    "worker,down_s,up_s\ngpu-9,0,1\n": "line 2: 'gpu-9' is not a worker of the fleet",
    "worker,down_s,up_s\ngpu-1,5,1\n": "line 2: up_s 1 is before down_s 5",
    "worker,down_s\ngpu-1,5\n": "line 1: no column up_s",
}


@pytest.mark.parametrize("text", OUTAGES)
def test_broken_outages_are_refused_with_their_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text(text)
    with pytest.raises(UsageError) as error:
        read_outages(tmp_path / "o.csv", fleet_of(1, 0, 0))
    assert OUTAGES[text] in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none\.csv: No such file or directory"):
        read_workload(tmp_path / "none.csv")


def test_a_workload_that_is_written_is_read_as_it_was(tmp_path: Path) -> None:
    made = generate(fleet_of(1, 1, 2), tasks=50, load=0.8, noise=0.5, arrivals=Arrivals.BURSTS, seed=7)
    write_workload(tmp_path / "w.csv", made)
    assert read_workload(tmp_path / "w.csv") == made


def test_work_that_no_worker_of_the_fleet_can_run_is_refused() -> None:
    made = generate(fleet_of(1, 1, 2), tasks=50, load=0.8, noise=0.0, arrivals=Arrivals.POISSON, seed=7)
    with pytest.raises(UsageError, match="requires gpu, and the fleet has no GPU worker: add one"):
        check_runnable(made, fleet_of(0, 0, 2), "w.csv")
    with pytest.raises(UsageError, match="requires cpu, and the fleet has no CPU or hybrid worker: add one"):
        check_runnable(made, fleet_of(2, 0, 0), "w.csv")
