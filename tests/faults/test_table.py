"""The fault table: what a row says about its outcomes, and the command's arguments."""

import pytest

from morag_queue.local.account import account
from tests.faults import __main__ as command
from tests.faults.account import FaultAccount
from tests.faults.fault import Outcome
from tests.faults.kills import KilledIdleWorkers
from tests.faults.table import Row, markdown
from tests.support.readme import README, with_fault_table


def outcome(acknowledged: str, ended: str, *notes: str, broken: tuple[str, ...] = (), left: str = "") -> Outcome:
    base = account(acknowledged, acknowledged, ended)
    words = FaultAccount(base.attempted, base.acknowledged, base.executed, left=frozenset(left))
    return Outcome(words, broken, notes)


def test_a_row_adds_up_its_runs() -> None:
    row = Row(KilledIdleWorkers)
    row.plain = [outcome("abcd", "ab", "one kill", left="c"), outcome("a", "aa", "one kill")]
    row.ours = [outcome("ab", "ab", "a note")]

    assert markdown([row]).splitlines()[2] == (
        f"| 2 | {KilledIdleWorkers.name} | 3 of 5 ran; 1 **lost**; 1 left unrun; 1 ran twice; one kill (2 times) "
        "| 2 of 2 ran; a note | none lost | yes |"
    )


def test_a_fault_that_plain_celery_cannot_show_has_a_dash_and_a_broken_promise_is_said() -> None:
    row = Row(KilledIdleWorkers, ours=[outcome("a", "a"), outcome("a", "", broken=("lost 1: a",))])

    assert row.cells()[2:] == ["–", "1 of 2 ran; 1 **lost**", "none lost", "**NO**"]
    assert not Row(KilledIdleWorkers).is_held, "it was not run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "99"], "invalid choice: 99"),
        (["--readme", "--only", "1"], "--readme writes the whole table: leave out --only"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)

    assert message in capsys.readouterr().err


def test_the_table_is_written_between_its_marks() -> None:
    text = with_fault_table(README.read_text("utf-8"), "| a | b |\n")

    assert "tests.faults --readme`. -->\n| a | b |\n<!-- End of the fault table. -->" in text
    assert with_fault_table(text, "| a | b |\n") == text
