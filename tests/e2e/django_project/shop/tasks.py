import os
import time

from celery import shared_task


@shared_task(name="shop.order")
def order(number: int) -> str:
    return f"ordered {number}"


@shared_task(name="shop.tick")
def tick() -> None: ...


@shared_task(name="shop.hold")
def hold(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.02)
