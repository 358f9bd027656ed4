"""Run the whole matrix: every key × every kind of garbage × every verb. Prints each complaint; exits with 1 on any.

`--verbs N` runs N verbs, chosen by `--seed`, for each key and kind instead of all; `--key` selects keys by name.
`--large` adds texts of 10 MB.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from morag_queue.local.sandbox import Sandbox
from morag_queue.local.server import Server

from .places import spoilers
from .trial import all_trials, complaints, make_spoiled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", type=int, default=0, help="verbs per key and kind; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--key", action="append", default=[])
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    chance, started, runs, failed = random.Random(given.seed), time.monotonic(), 0, 0
    with Sandbox() as sandbox, tempfile.TemporaryDirectory() as directory:
        server = Server(sandbox)
        with make_spoiled(server.url) as spoiled:
            verbs = all_trials()
            for place in spoiled.places:
                if given.key and place.name not in given.key:
                    continue
                spoiled.restore()
                for kind, spoil in list(spoilers(spoiled.fleet.client, place, large=given.large)):
                    for verb, words in chance.sample(verbs, given.verbs) if given.verbs else verbs:
                        runs += 1
                        found = complaints(spoiled, place, kind, spoil, verb, words, Path(directory))
                        failed += bool(found)
                        print(*found, sep="\n", end="\n" if found else "", flush=True)
        server.stop()
    print(f"{runs} runs in {time.monotonic() - started:.0f} s, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
