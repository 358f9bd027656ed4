"""Helpers shared by the tests; the fixtures are in `tests/conftest.py`."""
