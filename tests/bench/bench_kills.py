"""Messages lost by workers that are killed in a tight loop: with the agent, and plain Celery in the same run.

python -m tests.bench.bench_kills [KILLS]
"""

import sys

from tests.support.fleet import Fleet
from tests.support.kills import KillLoop

WORKERS, KILLS, SEED = 6, 60, 2


def main(kills: int) -> None:
    conf = {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "broker_transport_options": {"priority_steps": list(range(10))},
    }
    lost = {}
    for is_agentless in (False, True):
        print("stock Celery, late ack, prefetch 1" if is_agentless else "with the agent")
        with Fleet(agent=not is_agentless, conf=conf) as fleet:
            loop = KillLoop(fleet, WORKERS, SEED, is_agentless=is_agentless)
            loop.run(kills)
            if not is_agentless:
                loop.account()
            lost[is_agentless] = loop.vanished()
            for way, count in sorted(loop.kills.items()):
                print(f"  {way:8} {count:3} kills, {lost[is_agentless][way]:3} messages gone for ever")
    print(f"gone for ever in {kills} kills: {lost[False].total()} with the agent, {lost[True].total()} without")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS)
