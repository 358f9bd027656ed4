"""A damaged message stays in its lane, or is claimed whole with its holder and new tag."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from morag_queue.agent.unacked import readable
from tests.broker.conftest import ScriptRunner

MESSAGE = (
    b'{"body": "W10=", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"id": "a-1", '
    b'"task": "t", "eta": null, "timelimit": [null, null], "n": 1.5e3, "stamps": {}}, "properties": {"delivery_info": '
    b'{"exchange": "", "routing_key": "cpu_standard"}, "priority": 4, "body_encoding": "base64", '
    b'"delivery_tag": "d-1"}}'
)
PIECES = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\t", b"\x00", b"\x1f", b"\x7f", b"\xff",
          b"0x1F", b"1e", b"-", b"+1", b".5", b"01", b"nan", b"NaN", b"inf", b"Infinity", b"null", b"true", b"\\u12",
          b"\\ud800", b"\\u0000", b"\\x", b'"delivery_tag": "d-1"', b'"delivery_tag": "e"', b'"headers": 1, ',
          b"/*", b"'"]  # fmt: skip
edits = st.lists(
    st.tuples(st.integers(0, len(MESSAGE)), st.integers(0, 12), st.sampled_from([b"", *PIECES])), min_size=1, max_size=3
)


@given(changes=edits)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_message_is_left_or_claimed_whole(
    changes: list[tuple[int, int, bytes]], runner: ScriptRunner
) -> None:
    raw = MESSAGE
    for place, cut, piece in changes:
        raw = raw[:place] + piece + raw[place + cut :]
    runner.client.flushdb()
    runner.put(raw)

    taken = runner.claim()

    if taken is None:
        assert runner.waiting() == [raw]
        assert runner.client.hlen(runner.keys.unacked) == 0
        return
    message = readable(taken.text, lambda body, _: body)
    if message is None:  # the worker skips it; its holder is recorded, so a successor can requeue it
        assert runner.held(taken.tag) is not None
        return
    assert message["properties"]["delivery_tag"] == taken.tag
    restored, _, _ = loads(bytes_to_str(runner.unacked(taken.tag)))
    assert restored == message


def test_a_message_with_a_control_character_is_left_and_one_with_del_is_claimed(runner: ScriptRunner) -> None:
    # The first and last control characters; JSON allows 127, DEL.
    for character, is_claimed in ((b"\x00", False), (b"\x01", False), (b"\x1f", False), (b"\x7f", True)):
        runner.client.flushdb()
        runner.put(MESSAGE.replace(b"W10=", b"W1" + character + b"0="))
        assert (runner.claim() is not None) is is_claimed, character
