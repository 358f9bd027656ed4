"""A password never appears: not in an answer, a traceback, a key, the metrics or the arguments of a process."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import redis

from morag_queue.cli import VERBS
from morag_queue.cli.context import Environment
from morag_queue.cli.run import run
from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server
from tests.support.simulated_fleet import SimulatedFleet

from .trial import WITHOUT_FLEET, all_trials, changes

PASSWORD = "Hunter2/ä@:?&=#%;$(x)"
MARKS = ("Hunter2", "hunter2")
"""What no output may contain, whatever the encoding of the rest."""

ENCODED = quote(PASSWORD, safe="")
CONFIG = """
[broker.sentinel_kwargs]
password = "Hunter2"
"""


@pytest.fixture(scope="module")
def server():
    """A server with a password, and a small fleet."""
    with Sandbox() as sandbox:
        server = Server(sandbox)
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", PASSWORD)
        url = server.url.replace("://", f"://:{ENCODED}@")
        fleet = SimulatedFleet(url)
        fleet.join("cpu-1")
        fleet.submit("completed", "dead")
        fleet.end(fleet.claim("cpu-1"))
        fleet.end(fleet.claim("cpu-1"), "failed", "ValueError: no")
        fleet.submit("waits")
        yield url, fleet
        fleet.client.close()
        server.stop()


def outputs(words, url, directory):
    """Run a verb; return its status and everything that it wrote."""
    out, err = io.StringIO(), io.StringIO()
    known = {"HOME": str(directory), "USER": "ann", "REDIS_URL": url}
    status = run(VERBS, words, Environment(io.StringIO(), out, err, known, directory))
    return status, out.getvalue() + err.getvalue()


def broken_urls(url):
    """Yield URLs with the password that do not work: of a wrong login, place or form."""
    port = url.rpartition(":")[2].partition("/")[0]
    yield f"redis://nobody:{ENCODED}x@127.0.0.1:{port}/0"
    yield f"redis://:{ENCODED}@127.0.0.1:1/0"
    yield f"rediss://:{ENCODED}@127.0.0.1:{port}/0?ssl_cert_reqs=none"
    yield f"rediss://127.0.0.1:1/0?ssl_password={ENCODED}&password={ENCODED}"
    yield f"unix:///nowhere.sock?password={ENCODED}"
    yield f"sentinel://:{ENCODED}@127.0.0.1:1;sentinel://:{ENCODED}@127.0.0.1:2"
    yield f"redis://:{ENCODED}@127.0.0.1:port/0"
    yield f"redis://:{ENCODED}@127.0.0.1:1/name"
    yield f"redis://:{PASSWORD}@127.0.0.1:1/0"
    yield "redis://:Hunter2 with blanks@127.0.0.1:1/0"
    yield f"http://:{ENCODED}@127.0.0.1:1/0"
    yield f"redis://u:{ENCODED}@[127.0.0.1"


VERBS_TO_TRY = [("config show", []), ("config check", []), *all_trials()]


def command(verb, given):
    flags = ["--yes"] if verb not in WITHOUT_FLEET and changes(verb) else []
    return [*verb.split(), *("1-0" if one == "ENTRY" else one for one in given), *flags, "--debug"]


def test_no_verb_shows_the_password_of_a_working_url_or_stores_it(server, tmp_path):
    url, fleet = server
    (tmp_path / "morag-queue.toml").write_text(CONFIG)
    for verb, given in VERBS_TO_TRY:
        status, text = outputs(command(verb, given), url, tmp_path)
        assert status != 69, text
        assert not any(mark in text for mark in MARKS), (verb, text)
    for key in fleet.client.scan_iter():
        stored = key + (fleet.client.dump(key) or b"")
        assert not any(mark.encode() in stored for mark in MARKS), key
    assert fleet.broker.journal.latest(5)


def test_no_verb_shows_the_password_of_a_url_that_does_not_work(server, tmp_path):
    tried = [("stats", []), ("config show", []), ("tasks", []), ("watch", ["--once"]), ("config check", [])]
    for url in broken_urls(server[0]):
        for number, (verb, given) in enumerate(tried):
            words = [*command(verb, given), *(["--json"] if number % 2 else [])]
            as_option = verb != "config check" and number % 3 == 0
            status, text = outputs(
                [*words, "--redis-url", url] if as_option else words, "" if as_option else url, tmp_path
            )
            assert status in (69, 2) or verb.startswith("config"), (url, words, text)
            assert not any(mark in text for mark in MARKS), (url, words, text)


def test_every_verb_hides_the_password_of_a_refused_login(server, tmp_path):
    url = next(broken_urls(server[0]))
    for verb, given in all_trials():
        status, text = outputs(command(verb, given), url, tmp_path)
        assert status in (69, 2), (verb, status, text)
        assert not any(mark in text for mark in MARKS), (verb, text)


def test_the_processes_of_a_command_do_not_name_the_password(server, tmp_path):
    """The URL is in the environment, which only the same user can read; arguments are visible to all."""
    env = {**os.environ, "REDIS_URL": server[0], "HOME": str(tmp_path)}
    watch = subprocess.Popen(
        [sys.executable, "-m", "morag_queue", "watch", "--metrics-port", "0"],
        env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert watch.stdout is not None
        log = "".join(watch.stdout.readline() for _ in range(3))
        with urlopen(re.findall(r"http://[^\s\"]+", log)[0], timeout=10) as page:
            log += page.read().decode()
        arguments = Path(f"/proc/{watch.pid}/cmdline").read_bytes()
        children = Path(f"/proc/{watch.pid}/task/{watch.pid}/children").read_text().split()
        arguments += b"".join(Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
    finally:
        watch.terminate()
        log += watch.communicate(timeout=20)[0]
    assert "leading" in log
    assert "morag_queue_up 1.0" in log
    assert not any(mark in log or mark.encode() in arguments for mark in MARKS)
