"""100,000 single messages to 32 idle workers at random gaps: none is left lying, though only one worker is woken.

python -m tests.bench.bench_soak [MESSAGES [WORKERS [SEED]]]
"""

import sys
from contextlib import suppress

from morag_queue.local.waiting import DeadlineError, until
from tests.support.fleet import Fleet
from tests.support.single_messages import soak, start_workers


def main(messages: int = 100_000, workers: int = 32, seed: int = 1) -> int:
    with Fleet(agent=False) as fleet:
        start_workers(fleet, workers)
        result = soak(fleet, messages, seed)
        with suppress(DeadlineError):
            until(lambda: not fleet.redis.hlen(fleet.keys.unacked), 10, "")
        stuck = fleet.redis.hlen(fleet.keys.unacked)
    seconds = sorted(result.seconds)
    median, last = (1000 * seconds[int(part * (len(seconds) - 1))] for part in (0.5, 1))
    print(f"{messages} messages, {workers} workers, seed {seed}: {result.left} left lying, {stuck} stuck; ", end="")
    print(f"claimed after {median:.1f} ms (median), {last:.0f} ms (longest)")
    return int(result.left + stuck > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
