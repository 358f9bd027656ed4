"""`task show|why|cancel|move|prio|retry`: one task at a time, or all that a filter means."""

from .task_change import cancel, move, prio, retry
from .task_look import show, why

commands = {"show": show, "why": why, "cancel": cancel, "move": move, "prio": prio, "retry": retry}
