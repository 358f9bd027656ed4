"""What a worker reads of an earlier one of its name: any version, or anything else, may have written it."""

import pytest

from morag_queue.broker.codec import LastBeat, WorkerProcess, read_last_beat, read_process


@pytest.mark.parametrize(
    ("text", "process"),
    [
        (None, None),
        (
            b'{"host":"h","pid":7,"client_name":"mq.w","started_at":5.5,"from":"a later version"}',
            WorkerProcess("h", 7, "mq.w", 5.5),
        ),
        (b"{broken", WorkerProcess("", 0, "", 0.0)),
        (b'{"host":1,"pid":"7","started_at":"now"}', WorkerProcess("", 0, "", 0.0)),
    ],
)
def test_only_a_missing_registration_reads_as_none(text, process):
    assert read_process(text) == process


@pytest.mark.parametrize(
    ("text", "beat"),
    [
        (None, None),
        (b"{broken", None),
        (b'{"at":9.5,"cpu_percent":1.0}', LastBeat(9.5, stopped=False)),
        (b'{"at":9.5,"stopped":true}', LastBeat(9.5, stopped=True)),
        (b'{"at":"now","stopped":"yes"}', LastBeat(0.0, stopped=False)),
    ],
)
def test_only_a_heartbeat_that_says_so_is_one_of_a_clean_shutdown(text, beat):
    assert read_last_beat(text) == beat
