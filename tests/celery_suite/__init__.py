"""Run Celery's own integration tests against a stock worker and one with the agent: `python -m tests.celery_suite`."""
