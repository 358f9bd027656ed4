"""The paths, names and commands that the README and the map of the package mention exist."""

import re
from pathlib import Path

import pytest

import morag_queue
from morag_queue.cli import VERBS
from morag_queue.settings import load
from tests.support.readme import with_table

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "morag_queue"
README = (ROOT / "README.md").read_text()
CONTRIBUTING = README.partition("\n## Contributing\n")[2]
MAP = str(morag_queue.__doc__).partition("The map;")[2].partition("Glossary::")[0]

_PATH = r"\.?\w[\w./]*/[\w./]*|\w+\.(?:py|lua)"
_SCRIPTS = r"broker/lua/: ([\w, ]+)"


def paths(text: str) -> list[str]:
    return sorted(set(re.findall(_PATH, text)))


def exists(path: str) -> bool:
    return any((folder / path).exists() for folder in (PACKAGE, ROOT))


def test_the_readme_and_the_map_name_paths() -> None:
    assert {"cli/submit.py", "broker/lua/settle.lua", "core/balancing/", ".ci/run"} <= set(paths(CONTRIBUTING))
    assert {"cli/", "core/", "errors.py"} <= set(paths(MAP))


@pytest.mark.parametrize("path", sorted({*paths(CONTRIBUTING), *paths(MAP)}))
def test_a_named_path_exists(path: str) -> None:
    assert exists(path)


@pytest.mark.parametrize("script", [name for names in re.findall(_SCRIPTS, CONTRIBUTING) for name in names.split(", ")])
def test_a_named_script_exists(script: str) -> None:
    assert exists(f"broker/lua/{script.strip()}.lua")


@pytest.mark.parametrize(("path", "name"), re.findall(r"(\w[\w/]*\.py) ([\w.]+)", CONTRIBUTING))
def test_a_named_function_is_defined_in_its_file(path: str, name: str) -> None:
    text = (PACKAGE / path).read_text()
    for part in name.split("."):
        assert re.search(rf"^ *(?:class|def) {part}\b", text, re.MULTILINE), f"{path} defines no {part}"


def test_the_map_has_every_folder_of_the_package() -> None:
    folders = {f"{init.parent.name}/" for init in PACKAGE.glob("*/__init__.py")}
    assert folders == {path for path in paths(MAP) if path.endswith("/")}


@pytest.mark.parametrize("verb", sorted(set(re.findall(r"^morag-queue ([a-z-]+)", README, re.MULTILINE))))
def test_a_command_of_the_readme_exists(verb: str) -> None:
    assert verb in VERBS


@pytest.mark.parametrize("recipe", re.findall(r"^\| an? .*\|$", CONTRIBUTING, re.MULTILINE))
def test_a_recipe_edits_at_most_five_places(recipe: str) -> None:
    assert 2 <= len(re.findall(r"`[^`]+`", recipe)) <= 5


def test_the_table_of_commands_is_that_of_the_help() -> None:
    assert with_table(README) == README, "run: python -m tests.support.readme"
    assert "| `stats` | Show queues and workers |\n" in README
    assert "| `config init` | Write a settings file with every key, its default and its meaning |\n" in README


def test_every_example_of_settings_is_valid(tmp_path: Path) -> None:
    for number, example in enumerate(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)):
        file = tmp_path / f"{number}.toml"
        file.write_text(example)
        assert load({"config": file}, {}, tmp_path).file == file
        assert load({"config": file, "profile": "staging"}, {}, tmp_path).settings.redis_url == "redis://staging:6379/0"
