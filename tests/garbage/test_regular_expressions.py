"""Every regular expression of the package takes linear time on any text, by the growth of its processor time."""

import ast
import re
from pathlib import Path
from time import process_time

import pytest

import morag_queue

PACKAGE = Path(morag_queue.__file__).parent
SMALL, LARGE = 500, 8_000
MOST = 4 * LARGE / SMALL
"""Growth of a linear expression is 16, of a quadratic one 256."""
NOISE_S = 0.02
"""A search that takes less is not judged: a quadratic one takes far more for `LARGE` repetitions."""

ATOMS = (
    *("a", "0", " ", "\t", "\n", "<", ">", '"', "'", "\\", "/", ":", "@", "?", "&", "=", ".", ";", "-", "[", "{", "|"),
    *("://", "://a:", "redis://u:p", "x://a;", ";a", "?a", "?password", "&password=", "http://a.", "www.", "/shorts/"),
    *("<!---->", "<!-- ", "<?xml", "<?xml>", "<Pages>", "<a:Pages> "),
    *('"id":', '"id": "', '"id": "\\', "meta:page-count"),
    *(" name=", "id=1 ", "id=1 db=", " psub=", "1.", "1ms", "deadbeef-", "deadbeef-1234", "[ a ", "a = ", "\x01", "é"),
    *("xl/worksheets/", "ppt/slides/", "youtube-nocookie", "Input should ", "\\u0001", "local function a(", "end\n"),
)  # fmt: skip


BOUNDED = {"view/text.py": "_PART"}
"""Expressions that are given short texts only: `parse_duration` looks at 40 characters."""


KNOWN = ("re.escape(", "function['name']", "rule.pattern")
"""Expressions that are no literals: of names, of our own functions, and of settings."""


def patterns():
    """Yield the place, the text, the flags and the methods of every literal expression that is given to `re`.

    An expression that is only matched at the beginning of a text is not searched for.
    """
    for path in sorted(PACKAGE.rglob("*.py")):
        source, name = path.read_text("utf-8"), str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.keyword) and node.arg == "pattern" and isinstance(node.value, ast.Constant):
                yield f"{name}:{node.value.lineno}", node.value.value, 0, True  # of a setting
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if not is_call or not isinstance(node.func.value, ast.Name) or node.func.value.id != "re" or not node.args:
                continue
            if not isinstance(node.args[0], ast.Constant):
                is_known = any(known in ast.unparse(node) for known in KNOWN)
                assert is_known, f"{name}:{node.lineno} is no literal: test it here"
                continue
            methods, flags = {node.func.attr}, 0
            if methods == {"compile"}:
                (variable,) = re.findall(rf"^(\w+)[^=\n]* = re\.compile\({_start(source, node)}", source, re.M)
                methods = set(re.findall(rf"\b{variable}\.(\w+)\(", source)) or {"search"}
                flags = sum(eval(ast.unparse(flag), {"re": re}) for flag in node.args[1:])
                if BOUNDED.get(name) == variable:
                    continue
            yield f"{name}:{node.lineno}", node.args[0].value, flags, methods <= {"match", "fullmatch"}


def _start(source, node):
    """Return the first words of the arguments of a call, escaped."""
    return re.escape(ast.get_source_segment(source, node).partition("(")[2].split("\n")[0][:60])


FOUND = list(patterns())


def test_the_expressions_are_found():
    places = {place.partition(":")[0] for place, *_ in FOUND}
    assert {"settings/urls.py", "probe/formats.py", "broker/client_list.py"} <= places
    assert len(FOUND) > 25


@pytest.mark.parametrize(("place", "pattern", "flags", "is_anchored"), FOUND, ids=[place for place, *_ in FOUND])
def test_a_regular_expression_takes_linear_time(place, pattern, flags, is_anchored):
    compiled = re.compile(pattern, flags)
    slow = []
    for atom in ATOMS:
        for before, after in (("", ""), (" ", "\x00"), ("id=5 addr=a ", " end"), ("x://", "@")):
            parts = (before, atom, after)
            before, part, after = (one.encode() for one in parts) if isinstance(pattern, bytes) else parts
            seconds = _seconds(compiled, before + part * LARGE + after, is_anchored)
            if seconds < NOISE_S:
                continue
            small = max(_seconds(compiled, before + part * SMALL + after, is_anchored), NOISE_S / MOST)
            if seconds > MOST * small:
                slow.append((atom, seconds / small))
    assert not slow, f"{place}: {pattern!r}"


def _seconds(pattern, text, is_anchored):
    """The least processor time of two runs: one match, or over all matches."""
    times = []
    for _ in range(2):
        started = process_time()
        if is_anchored:
            pattern.match(text), pattern.fullmatch(text)
        else:
            for _ in pattern.finditer(text):
                pass
        times.append(process_time() - started)
    return min(times)
