"""The speed table: what a row says about its pairs, and the command that measures it."""

import json
from collections.abc import Iterator

import pytest

from tests.bench import __main__ as bench
from tests.bench.table import Measured, Result, Row, Subject, markdown, measure
from tests.support.readme import README, with_speed_table

FAST = Row("fast", "ours", "the peer", "ms", bar=1.1)
PAIRS = [(1.0, 2.0), (3.0, 2.0), (2.0, 2.0)]


def subject(closed: list[bool]) -> Subject:
    def pairs() -> Iterator[Measured]:
        try:
            for ours, peer in PAIRS * 100:
                yield {"fast": (ours, peer), "other": (1.0, 1.0)}
        finally:
            closed.append(True)

    return Subject((FAST, Row("other", "o", "p", "")), pairs, count=3)


def test_a_subject_is_measured_for_its_pairs_and_then_closed() -> None:
    closed: list[bool] = []

    fast, other = measure(subject(closed), set(), None)

    assert (fast.pairs, len(other.pairs), closed) == (PAIRS, 3, [True])
    assert len(measure(subject(closed), {"fast"}, 7)) == 1


def test_a_subject_ends_with_the_pair_in_which_its_time_is_over() -> None:
    (fast, _) = measure(subject([]), set(), 50, seconds=0.0)

    assert len(fast.pairs) == 1


@pytest.mark.parametrize(
    ("row", "pairs", "line"),
    [
        (FAST, PAIRS, "ours | 2.00 ms | the peer: 2.00 ms | 1.00 (0.50–1.50), 3 pairs | ≤ 1.10 | met"),
        (FAST, [(1234.5, 2.0)], "ours | 1,234 ms | the peer: 2.00 ms | 617 (617–617), 1 pair | ≤ 1.10 | NOT MET"),
        (Row("", "x", "p", "", bar=1.1, more_is_better=True), [(1.0, 1.0)] * 5,
         "x | 1.00 | p: 1.00 | 1.00 (1.00–1.00) | ≥ 1.10 | NOT MET"),
        (Row("", "x", "p", "ms"), PAIRS[:2],
         "x | 2.00 ms | p: 2.00 ms | 1.00 (0.50–1.50), 2 pairs | – | no difference"),
        (Row("", "x", "", "ms", bar=3.0, is_absolute=True), [(2.0, 1.0)] * 5,
         "x | 2.00 ms | – | 2.00 (2.00–2.00) ms | ≤ 3.00 ms | met"),
    ],
)  # fmt: skip
def test_a_row_of_the_table(row: Row, pairs: list[tuple[float, float]], line: str) -> None:
    assert markdown([Result(row, pairs)]).splitlines()[2] == f"| {line} |"


def test_the_command_measures_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    status = bench.main(["--only", "route", "--pairs", "1", "--json"])

    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["pairs"], row["unit"], row["peer"]) == ("route", 1, "µs", "with 4")
    assert row["median"] == row["ours"] / row["peers"]
    assert status == (0 if row["met"] else 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "invalid choice: 'nothing'"),
        (["--readme", "--only", "route"], "--readme writes the whole table: leave out --only"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(arguments)

    assert message in capsys.readouterr().err


def test_the_table_is_written_between_its_marks() -> None:
    before = README.read_text("utf-8")

    text = with_speed_table(before, "| a | b |\n")

    assert "--readme`. -->\n| a | b |\n<!-- End of the speed table. -->" in text
    assert with_speed_table(text, "| a | b |\n") == text
    with pytest.raises(ValueError, match="the README needs the lines"):
        with_speed_table("no marks", "")
