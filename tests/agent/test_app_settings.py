"""The app's own Celery settings win over the agent's defaults, however and whenever the app sets them."""

import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from morag_queue.agent import SAFE_DEFAULTS, install, setup
from morag_queue.agent.identity import Identity

OWN = {"task_acks_late": False, "worker_prefetch_multiplier": 4, "task_default_queue": "mine"}


def prefixed() -> dict[str, Any]:
    return {f"CELERY_{name.upper()}": value for name, value in OWN.items()}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that `config_from_object` can import."""
    module = ModuleType("settings_of_the_app")
    vars(module).update(OWN)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("MY_CELERY_CONFIG", module.__name__)
    return module


def set_attributes(app: Celery) -> None:
    for name, value in OWN.items():
        setattr(app.conf, name, value)


def set_after_reading(app: Celery) -> None:
    assert app.conf.task_default_exchange_type == "direct"
    app.conf.update(OWN)


def configure_django(app: Celery) -> None:
    """As a Django project does; its `LazySettings` is an object with uppercase attributes."""
    app.config_from_object(SimpleNamespace(DEBUG=False, **prefixed()), namespace="CELERY")


WAYS: dict[str, Callable[[Celery], object]] = {
    "conf.update": lambda app: app.conf.update(OWN),
    "conf.x = y": set_attributes,
    "conf[x] = y": lambda app: [app.conf.__setitem__(name, value) for name, value in OWN.items()],
    "after reading": set_after_reading,
    "object": lambda app: app.config_from_object(SimpleNamespace(**OWN)),
    "object, forced": lambda app: app.config_from_object(SimpleNamespace(**OWN), force=True),
    "dict": lambda app: app.config_from_object(dict(OWN)),
    "module": lambda app: app.config_from_object("settings_of_the_app"),
    "old names": lambda app: app.config_from_object(
        {"CELERY_ACKS_LATE": False, "CELERYD_PREFETCH_MULTIPLIER": 4, "CELERY_DEFAULT_QUEUE": "mine"}
    ),
    "namespace": configure_django,
    "environment": lambda app: app.config_from_envvar("MY_CELERY_CONFIG"),
    "add_defaults": lambda app: app.add_defaults(dict(OWN)),
    "add_defaults, lazy": lambda app: app.add_defaults(lambda: dict(OWN)),
}


@pytest.mark.parametrize("moment", ["before", "after", "after loading"])
@pytest.mark.parametrize("way", WAYS)
def test_the_apps_own_values_win_over_the_safe_defaults(way: str, moment: str, module: ModuleType) -> None:
    app = Celery("app", set_as_current=False)
    if moment == "before":
        WAYS[way](app)
    install(app)
    if moment == "after loading":
        assert app.conf.task_acks_late is True
    if moment != "before":
        WAYS[way](app)

    assert {name: app.conf[name] for name in OWN} == OWN
    others = {name: value for name, value in SAFE_DEFAULTS.items() if name not in OWN}
    assert {name: app.conf[name] for name in others} == others

    @app.task(shared=False)
    def task() -> None: ...

    assert (task.acks_late, task.reject_on_worker_lost) == (False, True)


def test_values_given_to_the_constructor_win() -> None:
    for app in (Celery("app", changes=dict(OWN), set_as_current=False), Celery("app", set_as_current=False, **OWN)):
        install(app)
        assert {name: app.conf[name] for name in OWN} == OWN


def test_the_defaults_apply_after_every_loading_of_the_settings() -> None:
    app = Celery("app", set_as_current=False)
    install(app)
    for name in ("first", "second"):
        app.config_from_object({"task_default_queue": name}, force=True)

        assert app.conf.task_default_queue == name
        assert {key: app.conf[key] for key in SAFE_DEFAULTS} == SAFE_DEFAULTS
        assert app.conf.maps.count(SAFE_DEFAULTS) == 1
    with suppress(AttributeError):  # of a copy in Celery 5.4, with or without the agent
        Celery("plain", set_as_current=False).conf.copy()
        assert app.conf.copy().worker_prefetch_multiplier == 1


@pytest.mark.parametrize(
    "changes", [{}, {"CELERY_BROKER_TRANSPORT_OPTIONS": {"visibility_timeout": 77, "priority_steps": [0, 5]}}]
)
def test_transport_options_under_a_namespace_are_kept(changes: dict[str, Any]) -> None:
    app = Celery("app", broker="redis://127.0.0.1:1", namespace="CELERY", set_as_current=False)
    app.config_from_object({"CELERY_BROKER_TRANSPORT_OPTIONS": {"visibility_timeout": 77}}, namespace="CELERY")
    app.conf.update(changes)

    setup.configure(app, Identity("w1", "mq", 60))

    options = app.connection_for_read().transport_options
    assert (options["visibility_timeout"], options["priority_steps"]) == (77, list(range(10)))
