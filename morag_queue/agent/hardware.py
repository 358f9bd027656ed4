"""Hardware and load of this machine, from psutil and, if installed (the `gpu` extra), nvidia-ml-py."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from morag_queue.core.enums import Capability
from morag_queue.errors import SettingsError

_GB = 1024**3


@dataclass(frozen=True, slots=True)
class Gpus:
    """`memory_gb` is the total; `percent` the mean load, None if it cannot be read."""

    count: int = 0
    memory_gb: float = 0.0
    percent: float | None = None


def gpus() -> Gpus:
    """The NVIDIA GPUs of this machine, from NVML; without NVML only their count, from /dev."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no driver, no library or no permission
        return Gpus(count=sum(os.path.exists(f"/dev/nvidia{number}") for number in range(16)))
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        memory = sum(pynvml.nvmlDeviceGetMemoryInfo(handle).total for handle in handles)
        loads = [pynvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles]
        return Gpus(len(handles), memory / _GB, sum(loads) / len(loads) if loads else None)
    finally:
        pynvml.nvmlShutdown()


def capability(given: str | None, env: Mapping[str, str]) -> Capability:
    """`given`, else MORAG_WORKER_TYPE, else WORKER_TYPE, else GPU if this machine has one, else CPU.

    Raises SettingsError for an unknown name.
    """
    names = {
        "worker_type": given,
        "MORAG_WORKER_TYPE": env.get("MORAG_WORKER_TYPE"),
        "WORKER_TYPE": env.get("WORKER_TYPE"),
    }
    for name, word in names.items():
        if word:
            try:
                return Capability(word.strip().lower())
            except ValueError:
                allowed = ", ".join(Capability)
                raise SettingsError(f"{name}={word!r}: no such worker type; choose one of {allowed}") from None
    return Capability.GPU if gpus().count else Capability.CPU


def describe() -> dict[str, Any]:
    """The hardware fields of `WorkerInfo`."""
    found = gpus()
    return {
        "cores": psutil.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / _GB, 2),
        "disk_gb": round(shutil.disk_usage(os.getcwd()).total / _GB, 1),
        "gpus": found.count,
        "gpu_memory_gb": round(found.memory_gb, 2),
    }


def load(has_gpu: bool) -> dict[str, Any]:
    """The load fields of `Heartbeat`, in percent."""
    fields: dict[str, Any] = {
        "cpu_percent": psutil.cpu_percent(),
        "memory_percent": psutil.virtual_memory().percent,
    }
    if has_gpu and (percent := gpus().percent) is not None:
        fields["gpu_percent"] = percent
    return fields


def is_same_process(pid: int, started_before: float) -> bool:
    """Whether the process with this id has been running since before that time (seconds since the epoch)."""
    try:
        process = psutil.Process(pid)
        # Process ids are reused: a process that started later is another one. A zombie has ended.
        return bool(process.create_time() <= started_before and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
