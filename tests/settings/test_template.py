"""The settings file that `config init` writes."""

import re

from morag_queue.settings import Settings, load
from morag_queue.settings.sources import leaves
from morag_queue.settings.template import template


def test_the_template_changes_nothing(tmp_path):
    (tmp_path / "morag-queue.toml").write_text(template())
    loaded = load({}, {}, tmp_path)
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_the_template_has_every_key_with_its_default(tmp_path):
    file = tmp_path / "morag-queue.toml"
    file.write_text(re.sub(r"^#(?=\w)", "", template(), flags=re.MULTILINE))
    loaded = load({}, {}, tmp_path)
    assert loaded.settings == Settings()
    assert not [key for key, origin in loaded.origins.items() if not origin.startswith(f"{file}, line ")]
    assert len(loaded.origins) == len(list(leaves(Settings()))) == len(re.findall(r"^#\w", template(), re.MULTILINE))


def test_every_key_and_table_of_the_template_has_its_meaning():
    lines = template().splitlines()
    assert not [line for line in lines if line.startswith("#") and re.search(r"# *(None)?$", line) and line != "#"]
    tables = [number for number, line in enumerate(lines) if line.startswith("[")]
    assert all(re.match(r"# [A-Z]", lines[number - 1]) for number in tables)
    assert (
        '#binding = "late"  # when a task is bound to a worker, at its claim or at submit: "late" or "early"' in lines
    )
    assert not [line for line in lines if len(line) > 160]


def test_the_profile_in_the_comments_is_valid(tmp_path):
    example = template().partition("keys are the same:\n#\n")[2]
    (tmp_path / "morag-queue.toml").write_text(example.replace("# ", "").replace("#\n", "\n"))
    assert load({"profile": "prod"}, {}, tmp_path).settings.policy.max_retries == 5
