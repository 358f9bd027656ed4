"""A client for commands that must start fast: the import of redis-py takes 50 ms, a quarter of the time of `stats`.

A `LightClient` sends scripts and the few other commands of `stats` and `submit`. redis-py is imported for the rest: for
other commands, for URLs whose options only it knows, and to send again what failed. So a lost connection is opened
again once, as redis-py does, and every error is redis-py's own. A refused command may be sent again, because neither a
script nor a single command writes anything before it is refused.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qs, urlsplit

from morag_queue.settings import BrokerSettings

from .light_client import LightClient, Reply, ReplyError, Word

if TYPE_CHECKING:
    from redis import Redis

_SCHEMES = {"redis", "unix"}
_OPTIONS = {"db", "password"}


def quick_client(url: str, options: BrokerSettings, *, name: str = "mq.cli") -> "Redis":
    """A client for any URL that `connect` takes. It is not thread-safe. `name` appears in CLIENT LIST."""

    def connect() -> "Redis":
        from .connection import connect

        return connect(url, options, name=name)

    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parse_qs(parts.query).keys() <= _OPTIONS:
        return connect()
    return cast("Redis", _QuickClient(url, options, name, connect))


class _QuickClient:
    """The methods of redis-py's client, of which `execute_command`, scripts and reads in a pipeline are quick."""

    def __init__(self, url: str, options: BrokerSettings, name: str, connect: "Callable[[], Redis]") -> None:
        self._url, self._options, self._name, self._connect = url, options, name, connect
        self._is_broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.redis, name)

    @cached_property
    def redis(self) -> "Redis":
        return self._connect()

    @cached_property
    def _light(self) -> LightClient:
        connect_seconds, read_seconds = self._options.connect_timeout_seconds, self._options.read_timeout_seconds
        return LightClient(self._url, connect_seconds, read_timeout=read_seconds, name=self._name)

    def execute_command(self, *words: Word) -> Any:
        answers = self.send(words)
        return self.redis.execute_command(*words) if answers is None else answers[0]

    def register_script(self, source: str) -> Callable[..., Any]:
        return _QuickScript(self, source)

    def pipeline(self, transaction: bool = True) -> Any:
        return self.redis.pipeline(transaction) if transaction else _QuickPipeline(self)

    def send(self, *commands: Sequence[Word]) -> list[Reply] | None:
        """The answers; None if redis-py has to send the commands. Raises TimeoutError, as it does not try again."""
        if self._is_broken:
            return None
        self._is_broken = True  # unless all is read: the rest must not be taken for the answers of other commands
        try:
            answers = self._light(*commands)
        except TimeoutError:
            raise
        except (OSError, ValueError):
            return None
        self._is_broken = False
        return None if any(isinstance(answer, ReplyError) for answer in answers) else answers


class _QuickScript:
    """Called as redis-py's scripts are. EVAL loads it if the server does not have it."""

    def __init__(self, owner: _QuickClient, source: str) -> None:
        self._owner, self._source = owner, source
        self._sha = sha1(source.encode(), usedforsecurity=False).hexdigest()

    @cached_property
    def _script(self) -> Callable[..., Any]:
        return self._owner.redis.register_script(self._source)

    def __call__(self, keys: Sequence[Word], args: Sequence[Word], client: "_QuickPipeline | None" = None) -> Any:
        if (pipeline := client) is not None:
            return pipeline.add(lambda pipe: self._script(keys=keys, args=args, client=pipe))
        words = (len(keys), *keys, *args)
        answers = self._owner.send(("EVALSHA", self._sha, *words)) or self._owner.send(("EVAL", self._source, *words))
        return self._script(keys=keys, args=args) if answers is None else answers[0]


class _QuickPipeline:
    """A pipeline without a transaction. It is quick if it only calls scripts by their digests and reads hashes."""

    def __init__(self, owner: _QuickClient) -> None:
        self._owner = owner
        self._calls: list[Callable[[Any], Any]] = []
        self._quick: list[tuple[Sequence[Word], Callable[[Any], Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: self.add(lambda pipe: getattr(pipe, name)(*args, **options))

    def evalsha(self, digest: str, count: int, *words: Word) -> Self:
        self._quick.append((("EVALSHA", digest, count, *words), _unchanged))
        return self.add(lambda pipe: pipe.evalsha(digest, count, *words))

    def hget(self, key: Word, field: Word) -> Self:
        self._quick.append((("HGET", key, field), _unchanged))
        return self.add(lambda pipe: pipe.hget(key, field))

    def hgetall(self, key: Word) -> Self:
        self._quick.append((("HGETALL", key), _as_dict))
        return self.add(lambda pipe: pipe.hgetall(key))

    def add(self, call: Callable[[Any], Any]) -> Self:
        """Add a call on redis-py's pipeline."""
        self._calls.append(call)
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        calls, quick, self._calls, self._quick = self._calls, self._quick, [], []
        answers = self._owner.send(*(words for words, _ in quick)) if len(quick) == len(calls) else None
        if answers is not None:
            return [read(answer) for (_, read), answer in zip(quick, answers, strict=True)]
        pipe = self._owner.redis.pipeline(transaction=False)
        for call in calls:
            call(pipe)
        return pipe.execute(raise_on_error)


def _unchanged(answer: Reply) -> Reply:
    return answer


def _as_dict(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
