"""`task show|why|cancel|move|prio|retry`: one task at a time, or all that a filter means."""

from .task_look import show, why

commands = {"show": show, "why": why}
