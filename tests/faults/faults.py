"""All faults, in the order of the table."""

from . import commands, deaths, kills, messages, moves, server
from .fault import Fault

FAULTS: list[type[Fault]] = [
    kills.KilledBusyWorkers,
    kills.KilledIdleWorkers,
    kills.KilledStoppedWorkers,
    server.LongTask,
    deaths.WorkerDies,
    deaths.ZombieWakes,
    deaths.DelayedTasks,
    server.Blip,
    server.ServerKilled,
    moves.MovedMessage,
    commands.KilledCommands,
    commands.ActingAtOnce,
    commands.Drain,
    server.FullServer,
    server.ReadOnlyServer,
    server.FlushedScripts,
    server.WrongType,
    messages.StrandedLevels,
    messages.PoisonPill,
    messages.HostileMessages,
]
