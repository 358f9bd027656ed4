"""The generated media of the demo."""

import filecmp
from collections import Counter
from pathlib import Path

from morag_queue.core.model import ContentType
from morag_queue.core.policy import ContentPolicies
from morag_queue.core.routing.classify import classify
from morag_queue.local.media import make_media
from morag_queue.probe import probe_many


def test_generated_media_match_their_extensions_and_cover_every_content_type(tmp_path: Path) -> None:
    sources = make_media(tmp_path)
    found = list(probe_many(sources, workers=1))

    assert 60 <= len(sources) <= 100
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 5_000_000
    assert [facts for facts in found if getattr(facts, "problems", "not read")] == []
    kinds = Counter(classify(facts, {}, ContentPolicies()).content_type for facts in found)  # type: ignore[arg-type]
    assert set(kinds) == set(ContentType)


def test_generated_media_depend_only_on_the_seed(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    make_media(one, 7)
    make_media(same, 7)
    make_media(other, 8)

    names = [str(path.relative_to(one)) for path in sorted(one.rglob("*")) if path.is_file()]
    assert filecmp.cmpfiles(one, same, names, shallow=False)[0] == names
    assert len(filecmp.cmpfiles(one, other, names, shallow=False)[1]) > len(names) / 2
