"""Garbage in every key, against every verb: `python -m tests.garbage` runs the whole matrix, the suite a part of it."""
