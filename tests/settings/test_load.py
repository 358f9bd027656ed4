"""Where settings come from, which wins, and what is said of a wrong one."""

from pathlib import Path

import pytest

from morag_queue.errors import SettingsError
from morag_queue.settings import load

KEY = "queues.gpu_priority.max_tasks_per_worker"
VARIABLE = "MORAG_QUEUE_QUEUES__GPU_PRIORITY__MAX_TASKS_PER_WORKER"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(toml: str | None, here: Path, **env: str) -> str:
    if toml is not None:
        write(here / "morag-queue.toml", toml)
    with pytest.raises(SettingsError) as caught:
        load({}, env, here)
    assert caught.value.exit_status == 2
    return str(caught.value).replace(f"{here}/", "")


def test_without_any_source_every_value_is_the_default(here):
    loaded = load({}, {}, here)
    assert loaded.settings.redis_url == "redis://localhost:6379/0"
    assert loaded.file is None
    assert set(loaded.origins.values()) == {"default"}


def test_the_url_is_taken_from_the_strongest_source_that_has_one(here):
    flags, env, file = {}, {}, here / "morag-queue.toml"
    seen = []
    for step in (
        lambda: write(file, 'redis_url = "redis://file"'),
        lambda: env.update(REDIS_URL="redis://plain"),
        lambda: env.update(MORAG_QUEUE_REDIS_URL="redis://ours"),
        lambda: flags.update(redis_url="redis://flag"),
    ):
        step()
        loaded = load(flags, env, here)
        seen.append((loaded.settings.redis_url, loaded.origins["redis_url"]))
    assert seen == [
        ("redis://file", f"{file}, line 1"),
        ("redis://plain", "REDIS_URL"),
        ("redis://ours", "MORAG_QUEUE_REDIS_URL"),
        ("redis://flag", "--redis-url"),
    ]


def test_the_first_file_found_is_the_only_one_read(here):
    env = {"XDG_CONFIG_HOME": str(here / "xdg")}
    write(here / "xdg/morag-queue/config.toml", 'namespace = "xdg"\nagent.location = "far"')
    assert load({}, env, here).settings.namespace == "xdg"
    write(here / "morag-queue.toml", 'namespace = "here"')
    assert load({}, env, here).settings.namespace == "here"
    assert load({}, env, here).settings.agent.location == ""
    write(here / "given.toml", 'namespace = "given"')
    assert load({"config": "given.toml"}, env, here).settings.namespace == "given"


def test_the_home_directory_is_searched_where_xdg_says_nothing(here):
    write(here / "home/.config/morag-queue/config.toml", 'namespace = "home"')
    assert load({}, {"HOME": str(here / "home")}, here).settings.namespace == "home"


def test_one_key_of_a_table_overrides_only_itself(here):
    write(here / "morag-queue.toml", "[queues.gpu_priority]\nmax_tasks_per_worker = 9\n")
    row = load({}, {}, here).settings.queues.gpu_priority
    assert (row.max_tasks_per_worker, row.weight, row.timeout_minutes) == (9, 1.0, 120)


def test_a_nested_key_is_written_with_two_underscores_in_the_environment(here):
    loaded = load({}, {VARIABLE: "5"}, here)
    assert loaded.settings.queues.gpu_priority.max_tasks_per_worker == 5
    assert loaded.origins[KEY] == VARIABLE


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("AGENT__TAGS", "a, b", ("a", "b")),
        ("AGENT__TAGS", '["a,b"]', ("a,b",)),
        ("BROKER__PRIORITY_STEPS", "0,3,6,9", (0, 3, 6, 9)),
        ("BROKER__SENTINEL_KWARGS", '{"password": "x"}', {"password": "x"}),
        ("AGENT__CLAIM", "off", False),
        ("POLICY__BINDING", "early", "early"),
    ],
)
def test_the_environment_carries_lists_tables_and_words(here, variable, text, value):
    table, key = variable.lower().split("__")
    settings = load({}, {f"MORAG_QUEUE_{variable}": text}, here).settings
    assert getattr(getattr(settings, table), key) == value


def test_an_empty_variable_counts_as_not_set(here):
    assert (
        load({}, {"REDIS_URL": "", "MORAG_QUEUE_NAMESPACE": "", "MORAG_QUEUE_X": ""}, here).settings.namespace == "mq"
    )


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (
            "[queues.gpu_priorty]\nweight = 1",
            'unknown setting "queues.gpu_priorty" in morag-queue.toml, line 1: did you mean "queues.gpu_priority"?',
        ),
        (
            "\n[policy]\nbindign = 'late'",
            'unknown setting "policy.bindign" in morag-queue.toml, line 3: did you mean "policy.binding"?',
        ),
        ("redis_uri = 'x'", 'unknown setting "redis_uri" in morag-queue.toml, line 1: did you mean "redis_url"?'),
        ("heartbeat_second = 1", 'did you mean "agent.heartbeat_seconds"?'),
        ("xyzzy = 1", '"morag-queue config show" lists every setting'),
        ("queues = 3", '"queues" in morag-queue.toml, line 1 should be a table: [queues]'),
        (
            "[policy]\nbinding = 'lat'",
            "policy.binding = \"lat\" (from morag-queue.toml, line 2): it should be 'late' or 'early'",
        ),
        (
            "[policy]\nmax_retries = -1\n[ledger]\nretention_seconds = 'long'",
            "policy.max_retries = -1 (from morag-queue.toml, line 2): it should be greater than or equal to 0\n"
            'ledger.retention_seconds = "long" (from morag-queue.toml, line 4): it should be a valid integer',
        ),
        ("a =\nb = 1", "morag-queue.toml is not valid TOML: Invalid value (at line 1, column 4)"),
        ("broker.priority_steps = [3, 0]", "it should be rising levels from 0 to 9, for example [0, 3, 6, 9]"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_what_would_be_right(here, toml, says):
    assert says in refused(toml, here)


def test_an_unknown_variable_suggests_the_nearest_one(here):
    assert refused(None, here, MORAG_QUEUE_REDIS_URI="x") == (
        "unknown setting MORAG_QUEUE_REDIS_URI in the environment: did you mean MORAG_QUEUE_REDIS_URL?"
    )


def test_a_wrong_variable_names_itself_its_value_and_what_is_allowed(here):
    assert refused(None, here, MORAG_QUEUE_POLICY__ORDER="fifo") == (
        "policy.order = \"fifo\" (from MORAG_QUEUE_POLICY__ORDER): it should be 'strict' or 'weighted'"
    )
    assert "MORAG_QUEUE_AGENT__TAGS is not valid JSON" in refused(None, here, MORAG_QUEUE_AGENT__TAGS="[a")


def test_a_file_that_is_no_text_is_said_so(here):
    (here / "morag-queue.toml").write_bytes(b"namespace = '\xff'")
    assert refused(None, here) == "morag-queue.toml is not UTF-8 text (byte 13)"


def test_a_named_file_that_is_missing_or_a_directory_is_said_so(here):
    for name, says in (("gone.toml", f"--config {here}/gone.toml: no such file"), (".", "Is a directory")):
        with pytest.raises(SettingsError, match=says):
            load({"config": name}, {}, here)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://u:hunter2@x", "it should start with one of redis://, rediss://, unix://, sentinel://, for example"),
        ("localhost:6379", "it should start with one of redis://"),
        ("redis://:hunter2@h:port/0", "its port should be a number"),
        ("redis://h/O", "its path should be the number of a database"),
        ("unix://", "it should name a socket"),
        ("sentinel://a:1;redis://b:x", "its port should be a number"),
    ],
)
def test_a_url_that_no_client_could_use_is_refused_without_its_password(here, url, says):
    message = refused(None, here, REDIS_URL=url)
    assert says in message
    assert "from REDIS_URL" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://u:p@h:6380/3",
        "unix:///run/r.sock?db=1",
        "sentinel://a:26379;sentinel://b:26379/0",
        "redis://[::1]:6379/0",
    ],
)
def test_urls_that_redis_py_and_celery_know_are_taken(here, url):
    assert load({"redis_url": url}, {}, here).settings.redis_url == url
