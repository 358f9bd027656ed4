import pytest

from morag_queue.core.words import count_of, is_are, some, span


def test_a_count_takes_the_singular_for_one_and_the_plural_for_any_other_number():
    assert [count_of(number, "task") for number in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]
    assert count_of(2, "entry", "entries") == "2 entries"
    assert (is_are(1), is_are(2)) == ("is", "are")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.4, "0 s"),
        (45, "45 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_a_duration_is_shown_in_the_largest_unit_that_it_holds_twice(seconds, expected):
    assert span(seconds) == expected


def test_a_long_list_of_names_is_sorted_and_cut_with_the_number_left_out():
    assert some(["b", "a", "b"]) == "a, b"
    assert some("edcba") == "a, b, c and 2 more"
    assert some("abcd", limit=1) == "a and 3 more"
    assert some([]) == ""
