"""Inject every fault into plain Celery and into a fleet with the agent, and print what became of each task.

python -m tests.faults [--only N …] [--repeat N] [--readme]

The exit status is 1 where a promise was broken or a fault could not be injected. The whole takes about 10 minutes.
"""

import argparse
import sys
import traceback

from tests.support.readme import README, with_fault_table

from .fault import run
from .faults import FAULTS
from .table import Row, markdown


def main(arguments: list[str]) -> int:
    numbers = sorted({fault.number for fault in FAULTS})
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", type=int, choices=numbers, metavar="N", help="only the faults so numbered")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run each N times, with seeds 1 to N")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    chosen = parser.parse_args(arguments)
    if chosen.readme and chosen.only:
        parser.error("--readme writes the whole table: leave out --only")
    rows, failed = list[Row](), False
    for fault in FAULTS:
        if chosen.only and fault.number not in chosen.only:
            continue
        row = Row(fault)
        rows.append(row)
        print(f"{fault.number}. {fault.name}", flush=True)
        for seed in range(1, chosen.repeat + 1):
            for is_plain in (True, False) if fault.is_shown_on_plain else (False,):
                try:
                    outcome = run(fault, is_plain=is_plain, seed=seed)
                except Exception:  # noqa: BLE001 - the other faults are injected all the same
                    traceback.print_exc()
                    failed = True
                    continue
                (row.plain if is_plain else row.ours).append(outcome)
                words = "; ".join([str(outcome.account), *outcome.notes])
                print(f"  {'plain Celery' if is_plain else 'morag-queue '}  {words}", flush=True)
                if not is_plain and outcome.broken:
                    print(f"  BROKEN: {'; '.join(outcome.broken)}", flush=True)
    if chosen.readme and not failed:
        README.write_text(with_fault_table(README.read_text("utf-8"), markdown(rows)), "utf-8")
    else:
        print(markdown(rows), end="")
    return 1 if failed or not all(row.is_held for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
