"""A Django project as its documentation and Celery's build one, with the agent added by one line in `celery.py`."""

from .celery import app as celery_app

__all__ = ("celery_app",)
