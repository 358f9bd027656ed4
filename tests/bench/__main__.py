"""Measure the speed table: `python -m tests.bench [--only ROW …] [--pairs N] [--json | --readme]`.

Each row is a ratio of ours to its peer, from pairs that are measured in turn in the same run: ours, peer, ours, peer, …
The whole table takes about 15 minutes on two cores. `--readme` writes it into README.md. The exit status is 1 where a
row misses its bar.
"""

import argparse
import json
import sys
import traceback
from time import monotonic

from tests.support.readme import README, with_speed_table

from . import backlog, idle, memory, moves, planning, producer, reading, submit, worker
from .table import Result, markdown, measure

SUBJECTS = [
    subject
    for module in (idle, worker, submit, producer, reading, backlog, planning, memory, moves)
    for subject in module.SUBJECTS
]
"""In the order of the table."""


def main(arguments: list[str]) -> int:
    names = [row.name for subject in SUBJECTS for row in subject.rows]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], choices=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--pairs", type=int, help="pairs of each row (default: 5, fewer for slow ones)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON document")
    output.add_argument("--readme", action="store_true", help="write the table into README.md")
    chosen = parser.parse_args(arguments)
    if chosen.readme and chosen.only:
        parser.error("--readme writes the whole table: leave out --only")
    wanted, results, failed = set(chosen.only), list[Result](), False
    for subject in SUBJECTS:
        if not wanted or wanted.intersection(row.name for row in subject.rows):
            began = monotonic()
            try:
                found = measure(subject, wanted, chosen.pairs)
            except Exception:  # noqa: BLE001 - the other rows are measured all the same
                traceback.print_exc()
                failed = True
                continue
            results += found
            for result in found:
                print(f"{result.row.name}: {'; '.join(filter(None, result.cells()))}", file=sys.stderr, flush=True)
            print(f"  {monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if chosen.readme and not failed:
        README.write_text(with_speed_table(README.read_text("utf-8"), markdown(results)), "utf-8")
    elif chosen.json:
        print(json.dumps([result.as_json() for result in results], indent=1))
    else:
        print(markdown(results), end="")
    return 1 if failed or any(result.is_met is False for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
