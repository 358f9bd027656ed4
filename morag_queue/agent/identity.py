"""Who this worker is, for as long as this process lives."""

import os
import secrets
import socket
from dataclasses import dataclass, field
from urllib.parse import quote


def new_incarnation() -> str:
    """One run in a worker's name: `<host>.<pid>.<random>`."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"


@dataclass(slots=True)
class Identity:
    """Shared by the heartbeat and the claim. A fenced worker goes on under a new incarnation, so it can change.

    Nothing is claimed while `registered` is false: an unregistered worker's messages would have no owner to look for.
    """

    worker: str
    namespace: str
    retention_seconds: float
    claims: bool = True
    incarnation: str = field(default_factory=new_incarnation)
    registered: bool = False
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)

    @property
    def client_name(self) -> str:
        """The CLIENT LIST name of all its broker connections (no blanks are allowed); its absence proves death."""
        return f"mq.{quote(self.worker, safe='')}.{quote(self.host, safe='')}.{self.pid}"
