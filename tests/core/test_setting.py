"""Tables of settings: values are converted to the types of their fields, and checked."""

from dataclasses import dataclass, fields, replace

import pytest

from morag_queue.core.policy import Order
from morag_queue.core.setting import Table, description, setting


@dataclass(frozen=True, kw_only=True)
class Inner(Table):
    name: str = setting("x", pattern="[a-z]+", description="a name")


@dataclass(frozen=True, kw_only=True)
class Outer(Table):
    switch: bool = setting(True, description="a switch")
    count: int = setting(3, ge=1, description="a count")
    share: float = setting(0.5, gt=0, le=1, description="a share")
    order: Order = setting(Order.STRICT, description="an order")
    words: tuple[str, ...] = setting((), description="words")
    pair: tuple[float, float] = setting((1.0, 2.0), description="a pair")
    more: dict[str, int] = setting({}, description="anything")
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("field", "given", "value"),
    [
        ("switch", "off", False),
        ("switch", " Yes ", True),
        ("switch", 0, False),
        ("count", "12", 12),
        ("count", 12.0, 12),
        ("share", 1, 1.0),
        ("share", "0.25", 0.25),
        ("order", "weighted", Order.WEIGHTED),
        ("words", ["a", "b"], ("a", "b")),
        ("pair", [1, "2.5"], (1.0, 2.5)),
        ("more", {"a": 1}, {"a": 1}),
    ],
)
def test_a_value_is_converted_to_the_type_of_its_field(field, given, value):
    found = getattr(Outer(**{field: given}), field)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("switch", "maybe", "it should be true or false"),
        ("switch", 2, "it should be true or false"),
        ("count", "many", "it should be a valid integer"),
        ("count", 1.5, "it should be a valid integer"),
        ("count", True, "it should be a valid integer"),
        ("count", float("inf"), "it should be a valid integer"),
        ("count", [1], "it should be a valid integer"),
        ("count", 0, "it should be greater than or equal to 1"),
        ("share", "half", "it should be a valid number"),
        ("share", None, "it should be a valid number"),
        ("share", 0, "it should be greater than 0"),
        ("share", 2, "it should be less than or equal to 1"),
        ("share", float("nan"), "it should be greater than 0"),
        ("order", "fifo", "it should be 'strict' or 'weighted'"),
        ("order", ["strict"], "it should be 'strict' or 'weighted'"),
        ("words", "a", "it should be a list"),
        ("words", [1], "it should be a valid string"),
        ("pair", [1.0], "it should be a list of 2 values"),
        ("more", [1], "it should be a table"),
        ("inner", {"name": "x"}, "it should be a table"),
    ],
)
def test_a_wrong_value_is_refused_with_what_it_should_be(field, given, message):
    with pytest.raises(ValueError, match=message) as refused:
        Outer(**{field: given})
    assert str(refused.value) == f"{field} = {given!r}: {message}"


@pytest.mark.parametrize("name", ["", "A", "a\n"])
def test_a_text_matches_its_pattern_as_a_whole(name):
    with pytest.raises(ValueError, match=r"it should match the pattern \[a-z\]\+$"):
        Inner(name=name)


def test_a_table_is_a_value():
    assert replace(Outer(), count=4) == Outer(count="4") != Outer()
    with pytest.raises(TypeError, match="unexpected keyword argument 'counts'"):
        Outer(counts=4)
    assert [description(field) for field in fields(Outer)][-3:] == ["a pair", "anything", ""]
