"""A fleet in memory, for tests and simulations with a virtual clock. It passes the contract suite of the Redis broker.

broker    the contract, and the workers' side: register, beat, claim, settle
lanes     messages in their lanes, and moves between them
ledger    records of tasks
recovery  requeues, resends, fences, cordons
leader    lease, balancer state, journal
counters  counts by the minute
"""

from .broker import MemoryBroker

__all__ = ["MemoryBroker"]
