"""Create the tables; send one task in a transaction that commits, and one in a transaction that does not."""

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402

from shop.tasks import order  # noqa: E402

call_command("migrate", verbosity=0)
with transaction.atomic():
    order.delay_on_commit(1)
try:
    with transaction.atomic():
        order.delay_on_commit(2)
        raise ValueError("the payment failed")
except ValueError:
    pass
