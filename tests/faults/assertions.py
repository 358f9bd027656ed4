"""What every test of a fault asserts at its end."""

from collections.abc import Collection, Sequence

from tests.support.agent_fleet import AgentFleet


def assert_nothing_lost(fleet: AgentFleet, sent: Sequence[str], may_run_twice: Collection[str] = ()) -> None:
    """Wait until all has run and nothing is held; assert the promise of at-least-once delivery."""
    fleet.until_ran(sent)
    fleet.until_nothing_is_unacked()
    assert fleet.account(sent).broken_promises(may_run_twice) == []
