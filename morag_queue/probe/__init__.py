"""Reads what a source is and says: facts in words and figures, without judgement (`core.classify` judges).

probe(source)         one path or URL → Facts
probe_many(sources)   many of them at once, in their order
expand(paths)         directories → the files in them
shown(source)         a name as it may be printed
"""

from .expand import expand
from .many import probe_many
from .names import shown
from .one import probe

__all__ = ["expand", "probe", "probe_many", "shown"]
