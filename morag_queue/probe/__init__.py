"""Read facts about a source, such as its type, duration and pages. `core.routing.classify` interprets them.

probe(source)          facts of one path or URL
probe_many(sources)    facts of many sources, in order, read in parallel
expand(paths)          the files below directories
display_name(source)   the source name, safe to print
"""

from .files import expand
from .names import display_name
from .source import probe
from .workers import probe_many

__all__ = ["display_name", "expand", "probe", "probe_many"]
