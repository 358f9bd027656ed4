"""Names of every Redis key that we use.

Ours live under `<global_keyprefix><namespace>:`; kombu's (`unacked`, `unacked_index` and the lanes) under its own
`global_keyprefix` alone. The description of a key starts with its Redis type, by which `doctor` and the tests know it.
A lane is kombu's list of that name for level 0, and `<lane><sep><level>` for the others.
"""

from dataclasses import dataclass

RESULT_KEYS = "celery-task-meta-"
"""The beginning of the names of Celery's results."""

KOMBU_SEP = "\x06\x16"


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one fleet."""

    namespace: str = "mq"
    prefix: str = ""
    sep: str = KOMBU_SEP

    def _own(self, name: str) -> str:
        return f"{self.prefix}{self.namespace}:{name}"

    def list(self, lane: str, level: int) -> str:
        """list: the messages of one lane at one level (kombu's), the next to run last"""
        return f"{self.prefix}{lane}{self.sep}{level}" if level else f"{self.prefix}{lane}"

    @property
    def unacked(self) -> str:
        """hash: delivery tag -> `[message, exchange, routing key]` (JSON, kombu's)"""
        return f"{self.prefix}unacked"

    @property
    def unacked_index(self) -> str:
        """zset: delivery tag -> when it was last kept from being redelivered (seconds, kombu's)"""
        return f"{self.prefix}unacked_index"

    @property
    def workers(self) -> str:
        """hash: worker -> its registration (JSON)"""
        return self._own("workers")

    @property
    def beats(self) -> str:
        """hash: worker -> its last heartbeat (JSON)"""
        return self._own("beats")

    @property
    def cordons(self) -> str:
        """hash: worker -> its cordon: state, author, reason, end (JSON)"""
        return self._own("cordons")

    @property
    def incarnations(self) -> str:
        """hash: worker -> the one incarnation that may act under its name"""
        return self._own("incarnations")

    @property
    def held(self) -> str:
        """hash: delivery tag -> the holder of the message (JSON), see claim.lua"""
        return self._own("held")

    @property
    def attempts(self) -> str:
        """hash: task id -> how many workers died over it; `story|<task id>` -> `[[at, worker, why]…]` (JSON)"""
        return self._own("attempts")

    @property
    def lanes(self) -> str:
        """set: worker lanes that were ever used"""
        return self._own("lanes")

    @property
    def paused(self) -> str:
        """set: queues from which nothing is claimed"""
        return self._own("paused")

    @property
    def pauses(self) -> str:
        """hash: paused queue -> who paused it, when and why (JSON)"""
        return self._own("pauses")

    @property
    def totals(self) -> str:
        """hash: `<outcome>|<worker>`, `run_ms|<worker>`, `<outcome>||<queue>` -> count of all time"""
        return self._own("totals")

    @property
    def current(self) -> str:
        """hash: as `minute`, not yet added to `minute`, `hour` and `figures`; `minute`: the number of its minute"""
        return self._own("current")

    @property
    def figures(self) -> str:
        """hash: as `minute`, of all time"""
        return self._own("figures")

    @property
    def surprises(self) -> str:
        """hash: `<content type>|<requires>|<1 on a GPU, else 0>|n` -> runs not yet learned from; `…|x` -> the sum
        of their log errors"""
        return self._own("surprises")

    @property
    def corrections(self) -> str:
        """string: corrections of estimated run times (JSON): `<content type>|<requires>|<0 or 1>` -> [runs, m]"""
        return self._own("corrections")

    @property
    def lease(self) -> str:
        """string: the leader's lease (JSON)"""
        return self._own("lease")

    @property
    def terms(self) -> str:
        """string: the last term of a lease; it never expires, so that no term is given twice"""
        return self._own("terms")

    @property
    def watched(self) -> str:
        """string: the user who ran `watch` last; it expires a day after that `watch` last led"""
        return self._own("watched")

    @property
    def memory(self) -> str:
        """string: state of the balancing loop between two turns (JSON)"""
        return self._own("memory")

    @property
    def journal(self) -> str:
        """stream: every change, capped"""
        return self._own("journal")

    def undo(self, change_id: str) -> str:
        """list: what one change did, one part for each call of a script: what the script found of each task (JSON), a
        newline, and the tasks before and after it (zlib of JSON); it expires, see undo.py"""
        return self._own(f"undo:{change_id}")

    @property
    def dead(self) -> str:
        """hash: task id -> dead letter (JSON): `message` (as it was in its lane) or `entry` (the ledger's, as text),
        `lane`, `level`, `state`, `at`, `reason`, `source`, and `story`: `[[at, worker, why]…]`"""
        return self._own("dead")

    @property
    def revoked(self) -> str:
        """zset: delivery tag -> when it was cancelled while a worker held it (seconds); it must not be redelivered"""
        return self._own("revoked")

    @property
    def graves(self) -> str:
        """zset: task id -> since when it is in `dead` (seconds); at capacity the oldest is dropped"""
        return self._own("graves")

    def waiting(self, group: str) -> str:
        """zset: worker that waits for work on these shared lanes -> when it last said so (seconds), see wait.lua"""
        return self._own(f"waiting:{group}")

    def tracker(self, group: str) -> str:
        """string: the waiting worker that a push to these shared lanes wakes; it expires unless renewed"""
        return self._own(f"tracker:{group}")

    def bell(self, worker: str) -> str:
        """string: why this worker was woken by another, `work` or `track`; it expires"""
        return self._own(f"bell:{worker}")

    def task(self, task_id: str) -> str:
        """string: a task's ledger entry (JSON); it expires once the task has ended"""
        return self._own(f"task:{task_id}")

    def ids(self, first: object) -> str:
        """list: the ids in the ledger that start with the two bytes `first`, without these, see lua/lib/ids.lua"""
        return self._own(f"ids:{first}")

    def ended(self, part: object) -> str:
        """list: the tasks of one outcome and minute (`part`: `<outcome>:<minute>`), in the order of their
        ends, each as `<milliseconds of run time, or nothing> <task id>`; it expires with their ledger entries"""
        return self._own(f"ended:{part}")

    def result(self, task_id: str) -> str:
        """string: the result of a task by Celery's Redis backend, where it uses the broker's database"""
        return f"{self.prefix}{RESULT_KEYS}{task_id}"

    def minute(self, at: float) -> str:
        """hash: `<queue>|<figure>` -> count of that minute"""
        return self._own(f"minute:{int(at // 60)}")

    def hour(self, at: float) -> str:
        """hash: as `minute`, of that hour"""
        return self._own(f"hour:{int(at // 3600)}")


def fixed_keys(keys: Keys) -> dict[str, str]:
    """Each key with a fixed name, and its Redis type: the first word of its description."""
    return {
        getattr(keys, name): (member.__doc__ or "").partition(":")[0]
        for name, member in vars(Keys).items()
        if isinstance(member, property)
    }
