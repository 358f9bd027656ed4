import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_queue.settings import mask_url


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("redis://u:pw@h", "redis://u:***@h"),
        ("redis://u@h:6379/0", "redis://u@h:6379/0"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:p/w?@x@h/0", "redis://:***@h/0"),
        ("unix:///s.sock?db=1&password=pw", "unix:///s.sock?db=1&password=***"),
        ("rediss://h?ssl_password=pw&db=1", "rediss://h?ssl_password=***&db=1"),
        ("sentinel://:a@x;sentinel://:b@y", "sentinel://:***@x;sentinel://:***@y"),
        ("cannot reach redis://:pw@h: see me@home", "cannot reach redis://:***@h: see me@home"),
    ],
)
def test_passwords_are_masked_and_the_rest_is_kept(text, masked):
    assert mask_url(text) == masked


@given(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=8).filter(lambda text: ";" not in text))
def test_an_unescaped_password_is_masked(password):
    assert password not in mask_url(f"redis://user:{password}@host:6379/0").removeprefix("redis://user:")
