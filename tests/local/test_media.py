"""The demo's own media."""

import filecmp
from collections import Counter
from pathlib import Path

from morag_queue.core.model import ContentType
from morag_queue.core.policy import ContentPolicies
from morag_queue.core.routing.classify import classify
from morag_queue.local.media import make_media
from morag_queue.probe import probe_many


def test_media_are_what_their_names_say_and_of_every_kind(tmp_path: Path) -> None:
    sources = make_media(tmp_path)
    found = list(probe_many(sources, workers=1))

    assert 60 <= len(sources) <= 100
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 5_000_000
    assert [facts for facts in found if getattr(facts, "problems", "not read")] == []
    kinds = Counter(classify(facts, {}, ContentPolicies()).content_type for facts in found)  # type: ignore[arg-type]
    assert set(kinds) == set(ContentType)


def test_the_same_seed_makes_the_same_media_and_another_makes_others(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    make_media(one, 7)
    make_media(same, 7)
    make_media(other, 8)

    names = [str(path.relative_to(one)) for path in sorted(one.rglob("*")) if path.is_file()]
    assert filecmp.cmpfiles(one, same, names, shallow=False)[0] == names
    assert len(filecmp.cmpfiles(one, other, names, shallow=False)[1]) > len(names) / 2
