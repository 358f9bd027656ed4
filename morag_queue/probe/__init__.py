"""Read facts about a source, such as its type, duration and pages. `core.routing.classify` interprets them.

probe(source)          facts of one path or URL
probe_many(sources)    facts of many sources, in order, read in parallel
Prober                 the same, for a caller that does other work meanwhile
expand(paths)          the files below directories
display_name(source)   the source name, safe to print
"""

from .files import expand
from .names import display_name
from .source import probe
from .workers import Prober, Probing, probe_many

__all__ = ["Prober", "Probing", "display_name", "expand", "probe", "probe_many"]
