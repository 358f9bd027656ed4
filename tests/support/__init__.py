"""What tests of all kinds use; fixtures are in `tests/conftest.py`."""
