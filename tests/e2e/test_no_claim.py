"""A worker that cannot claim says so everywhere, and works."""

from collections.abc import Callable

import pytest

from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet

WORKER = "worker-cpu-1"
MISSING = "the installed Celery, kombu or redis-py has no redis._parsers._RESP3Parser"
SWITCHED_OFF = "the setting agent.claim is false"


@pytest.mark.parametrize(
    ("app", "setting", "reason"),
    [("tests.e2e.app_unsupported", "true", MISSING), ("tests.e2e.app", "false", SWITCHED_OFF)],
    ids=["not possible", "switched off"],
)
def test_a_worker_without_the_claim_says_why(
    app: str, setting: str, reason: str, make_agent_fleet: Callable[..., AgentFleet]
) -> None:
    fleet = make_agent_fleet(env={"MORAG_QUEUE_AGENT__CLAIM": setting})
    fleet.start_worker(WORKER, app=app)

    fleet.until_ran([fleet.submit("t.add", 1, 1)])

    assert not fleet.claims(WORKER)
    [worker] = fleet.run_json("stats")["workers"]
    assert (worker["claims"], worker["no_claim_reason"]) == (False, reason)
    assert "no claim" in fleet.run("stats").stdout
    [finding] = [one for one in fleet.run_json("doctor")["findings"] if one["code"] == "NO_CLAIM"]
    assert finding["message"].endswith(f"; {reason}")
    warning = f"{WORKER} takes messages without the atomic claim, so a kill may lose one"
    until(lambda: warning in fleet.log(WORKER) and reason in fleet.log(WORKER), 5, lambda: fleet.log(WORKER))
