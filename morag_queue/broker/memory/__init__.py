"""A fleet in memory, for tests and for runs against a clock of one's own. It passes the contract suite of the real one.

broker    the port, and the workers' side: register, beat, claim, settle
lists     messages in their lanes, and how they are moved
office    lease, memory of the loop, journal
figures   what happened, by the minute
"""

from .broker import MemoryBroker

__all__ = ["MemoryBroker"]
