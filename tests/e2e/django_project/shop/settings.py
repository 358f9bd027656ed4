import os

SECRET_KEY = "of a test"
USE_TZ = True
INSTALLED_APPS = ["shop", "django_celery_results"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SHOP_DATABASE"],
        "OPTIONS": {"timeout": 30},
    }
}

CELERY_BROKER_URL = os.environ["REDIS_URL"]
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 7200}
CELERY_RESULT_BACKEND = "django-db"
CELERY_TASK_DEFAULT_QUEUE = "cpu_standard"
CELERY_WORKER_PREFETCH_MULTIPLIER = 2
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_BEAT_SCHEDULE = {
    "tick": {"task": "shop.tick", "schedule": 0.5, "options": {"queue": "cpu_batch", "priority": 5}},
}
