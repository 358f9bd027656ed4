"""Sources of settings, their precedence, and the messages for wrong settings."""

from pathlib import Path

import pytest

from morag_queue.errors import SettingsError
from morag_queue.settings import load

KEY = "queues.gpu_priority.max_tasks_per_worker"
VARIABLE = "MORAG_QUEUE_QUEUES__GPU_PRIORITY__MAX_TASKS_PER_WORKER"


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "cwd").mkdir()
    return tmp_path / "cwd"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(toml: str | None, cwd: Path, **env: str) -> str:
    if toml is not None:
        write(cwd / "morag-queue.toml", toml)
    with pytest.raises(SettingsError) as caught:
        load({}, env, cwd)
    assert caught.value.exit_status == 2
    return str(caught.value).replace(f"{cwd}/", "")


def test_without_a_source_every_value_is_the_default(cwd):
    loaded = load({}, {}, cwd)
    assert loaded.settings.redis_url == "redis://localhost:6379/0"
    assert loaded.file is None
    assert set(loaded.origins.values()) == {"default"}


def test_the_url_is_taken_from_the_source_of_highest_precedence(cwd):
    flags, env, file = {}, {}, cwd / "morag-queue.toml"
    seen = []
    for step in (
        lambda: write(file, 'redis_url = "redis://file"'),
        lambda: env.update(REDIS_URL="redis://plain"),
        lambda: env.update(MORAG_QUEUE_REDIS_URL="redis://ours"),
        lambda: flags.update(redis_url="redis://flag"),
    ):
        step()
        loaded = load(flags, env, cwd)
        seen.append((loaded.settings.redis_url, loaded.origins["redis_url"]))
    assert seen == [
        ("redis://file", f"{file}, line 1"),
        ("redis://plain", "REDIS_URL"),
        ("redis://ours", "MORAG_QUEUE_REDIS_URL"),
        ("redis://flag", "--redis-url"),
    ]


def test_only_the_first_file_found_is_read(cwd):
    env = {"XDG_CONFIG_HOME": str(cwd / "xdg")}
    write(cwd / "xdg/morag-queue/config.toml", 'namespace = "xdg"\nagent.location = "far"')
    assert load({}, env, cwd).settings.namespace == "xdg"
    write(cwd / "morag-queue.toml", 'namespace = "cwd"')
    assert load({}, env, cwd).settings.namespace == "cwd"
    assert load({}, env, cwd).settings.agent.location == ""
    write(cwd / "given.toml", 'namespace = "given"')
    assert load({"config": "given.toml"}, env, cwd).settings.namespace == "given"


def test_the_home_directory_is_searched_if_xdg_config_home_is_unset(cwd):
    write(cwd / "home/.config/morag-queue/config.toml", 'namespace = "home"')
    assert load({}, {"HOME": str(cwd / "home")}, cwd).settings.namespace == "home"


def test_a_key_of_a_table_overrides_only_itself(cwd):
    write(cwd / "morag-queue.toml", "[queues.gpu_priority]\nmax_tasks_per_worker = 9\n")
    row = load({}, {}, cwd).settings.queues.gpu_priority
    assert (row.max_tasks_per_worker, row.weight, row.timeout_minutes) == (9, 1.0, 120)


def test_two_underscores_in_a_variable_separate_the_parts_of_a_key(cwd):
    loaded = load({}, {VARIABLE: "5"}, cwd)
    assert loaded.settings.queues.gpu_priority.max_tasks_per_worker == 5
    assert loaded.origins[KEY] == VARIABLE


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("AGENT__TAGS", "a, b", ("a", "b")),
        ("AGENT__TAGS", '["a,b"]', ("a,b",)),
        ("BROKER__PRIORITY_STEPS", "0,3,6,9", (0, 3, 6, 9)),
        ("BROKER__PRIORITY_STEPS", "[0, 3, 6, 9]", (0, 3, 6, 9)),
        ("BROKER__PRIORITY_STEPS", "auto", "auto"),
        ("BROKER__SENTINEL_KWARGS", '{"password": "x"}', {"password": "x"}),
        ("AGENT__CLAIM", "off", False),
        ("POLICY__BINDING", "early", "early"),
    ],
)
def test_variables_hold_lists_tables_and_scalars(cwd, variable, text, value):
    table, key = variable.lower().split("__")
    settings = load({}, {f"MORAG_QUEUE_{variable}": text}, cwd).settings
    assert getattr(getattr(settings, table), key) == value


def test_an_empty_variable_counts_as_unset(cwd):
    assert load({}, {"REDIS_URL": "", "MORAG_QUEUE_NAMESPACE": "", "MORAG_QUEUE_X": ""}, cwd).settings.namespace == "mq"


@pytest.mark.parametrize(
    ("toml", "message"),
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
        (
            "broker.priority_steps = [3, 0]",
            'it should be "auto" or a list of ascending levels from 0 to 9, for example [0, 3, 6, 9]',
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_line_and_a_remedy(cwd, toml, message):
    assert message in refused(toml, cwd)


PROFILES = """\
redis_url = "redis://base"
namespace = "base"

[profiles.prod]
redis_url = "redis://prod"

[profiles.prod.policy]
max_retries = 7

[profiles.dev]
redis_url = "redis://dev"
"""


def test_a_profile_overrides_the_base_of_its_file(cwd):
    file = write(cwd / "morag-queue.toml", PROFILES)
    loaded = load({"profile": "prod"}, {}, cwd)
    assert (loaded.settings.redis_url, loaded.settings.namespace) == ("redis://prod", "base")
    assert loaded.settings.policy.max_retries == 7
    assert loaded.origins["redis_url"] == f"profile prod ({file}, line 5)"
    assert loaded.origins["policy.max_retries"] == f"profile prod ({file}, line 8)"
    assert loaded.origins["namespace"] == f"{file}, line 2"
    assert (loaded.profile, loaded.profiles) == ("prod", ("prod", "dev"))
    assert load({}, {}, cwd).settings.redis_url == "redis://base"


def test_a_profile_is_chosen_by_flag_before_variable_and_ranks_between_the_two_url_variables(cwd):
    write(cwd / "morag-queue.toml", PROFILES)
    env = {"MORAG_QUEUE_PROFILE": "dev"}
    assert load({}, env, cwd).settings.redis_url == "redis://dev"
    assert load({"profile": "prod"}, env, cwd).settings.redis_url == "redis://prod"
    assert load({}, {**env, "REDIS_URL": "redis://plain"}, cwd).settings.redis_url == "redis://dev"
    assert load({}, {**env, "MORAG_QUEUE_REDIS_URL": "redis://ours"}, cwd).settings.redis_url == "redis://ours"
    assert load({"redis_url": "redis://flag"}, env, cwd).settings.redis_url == "redis://flag"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (PROFILES, "no profile 'prdo' in morag-queue.toml: it has dev, prod"),
        ("namespace = 'x'", "no profile 'prdo' in morag-queue.toml: it has none; add a table [profiles.prdo]"),
        (None, "no profile 'prdo': no settings file was found; `morag-queue config init` writes one"),
        ("profiles = 3", '"profiles" in morag-queue.toml, line 1 should hold tables: [profiles.NAME]'),
        (
            "[profiles.prdo]\nredis_uri = 'x'",
            'unknown setting "redis_uri" in profile prdo (morag-queue.toml, line 2): did you mean "redis_url"?',
        ),
        (
            "[profiles.prdo.policy]\nbinding = 'lat'",
            "policy.binding = \"lat\" (from profile prdo (morag-queue.toml, line 2)): it should be 'late' or 'early'",
        ),
    ],
)
def test_a_wrong_profile_is_refused_with_the_line_and_a_remedy(cwd, toml, message):
    assert refused(toml, cwd, MORAG_QUEUE_PROFILE="prdo") == message


def test_all_problems_are_reported_at_once(cwd):
    assert refused("redis_uri = 'x'\n[policy]\nmax_retries = -1", cwd, MORAG_QUEUE_NAMESPAC="x").splitlines() == [
        'unknown setting "redis_uri" in morag-queue.toml, line 1: did you mean "redis_url"?',
        "unknown setting MORAG_QUEUE_NAMESPAC in the environment: did you mean MORAG_QUEUE_NAMESPACE?",
        "policy.max_retries = -1 (from morag-queue.toml, line 3): it should be greater than or equal to 0",
    ]


def test_an_unknown_variable_suggests_the_nearest_one(cwd):
    assert refused(None, cwd, MORAG_QUEUE_REDIS_URI="x") == (
        "unknown setting MORAG_QUEUE_REDIS_URI in the environment: did you mean MORAG_QUEUE_REDIS_URL?"
    )


def test_a_wrong_variable_is_refused_with_its_value_and_the_allowed_values(cwd):
    assert refused(None, cwd, MORAG_QUEUE_POLICY__ORDER="fifo") == (
        "policy.order = \"fifo\" (from MORAG_QUEUE_POLICY__ORDER): it should be 'strict' or 'weighted'"
    )
    assert "MORAG_QUEUE_AGENT__TAGS is not valid JSON" in refused(None, cwd, MORAG_QUEUE_AGENT__TAGS="[a")


def test_a_file_that_is_not_text_is_refused(cwd):
    (cwd / "morag-queue.toml").write_bytes(b"namespace = '\xff'")
    assert refused(None, cwd) == "morag-queue.toml is not UTF-8 text (byte 13); save it as UTF-8"


def test_a_config_file_that_is_missing_or_a_directory_is_refused(cwd):
    for name, message in (("gone.toml", f"--config {cwd}/gone.toml: no such file"), (".", "Is a directory")):
        with pytest.raises(SettingsError, match=message):
            load({"config": name}, {}, cwd)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://u:hunter2@x", "it should start with one of redis://, rediss://, unix://, sentinel://, for example"),
        ("localhost:6379", "it should start with one of redis://"),
        ("redis://:hunter2@h:port/0", "its port should be a number"),
        ("redis://h/O", "its path should be the number of a database"),
        ("unix://", "it should name a socket"),
        ("sentinel://a:1;redis://b:x", "its port should be a number"),
    ],
)
def test_an_unusable_url_is_refused_without_showing_its_password(cwd, url, message):
    error = refused(None, cwd, REDIS_URL=url)
    assert message in error
    assert "from REDIS_URL" in error
    assert "hunter2" not in error


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
def test_urls_of_redis_py_and_celery_are_accepted(cwd, url):
    assert load({"redis_url": url}, {}, cwd).settings.redis_url == url
