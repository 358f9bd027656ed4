"""The task body of `local.app`: light but real work on a file or URL."""

import hashlib
import wave
from array import array
from collections.abc import Mapping
from math import sqrt
from typing import Any

from morag_queue.core.estimate import estimate, possible
from morag_queue.core.model import Capability, Classification, ContentType
from morag_queue.core.policy import ContentPolicies
from morag_queue.core.routing.classify import classify
from morag_queue.probe import probe

_CHUNK = 1 << 20
_FACTS = ("mime", "duration_s", "width", "height", "pages", "characters")


def work_on(source: str, content_type: str | None) -> tuple[dict[str, Any], Classification]:
    """Read the source; return a small JSON result and the classification.

    A file is read whole and hashed; a URL is not fetched. Raises SourceError if the file is missing.
    """
    declared = ContentType(content_type) if content_type else None
    facts = probe(source, declared=declared)
    found = classify(facts, {}, ContentPolicies(), declared=declared)
    result: dict[str, Any] = {"source": source, "content_type": found.content_type.value}
    result |= {name: value for name in _FACTS if (value := getattr(facts, name)) is not None}
    if facts.is_url:
        return {**result, "visited": False}, found
    result |= _read(source, is_text=(facts.mime or "").startswith("text/"))
    if facts.mime and facts.mime.endswith("wave"):
        result |= _loudness(source)
    return result, found


def _read(path: str, is_text: bool) -> dict[str, Any]:
    digest, size, words, in_word = hashlib.sha256(), 0, 0, False
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if is_text:
                words += len(chunk.split()) - (in_word and not chunk[:1].isspace())
                in_word = not chunk[-1:].isspace()
    found = {"bytes": size, "sha256": digest.hexdigest()}
    return {**found, "words": words} if is_text else found


def _loudness(path: str) -> dict[str, Any]:
    """Root mean square of the samples, 0 to 1; empty unless the format is 8- or 16-bit PCM."""
    try:
        with wave.open(path) as sound:
            width = sound.getsampwidth()
            if width not in (1, 2):
                return {}
            total = count = 0
            while frames := sound.readframes(_CHUNK // width):
                samples = [byte - 128 for byte in frames] if width == 1 else array("h", frames)
                total += sum(sample * sample for sample in samples)
                count += len(samples)
    except (wave.Error, EOFError):
        return {}
    return {"rms": round(sqrt(total / count) / 2 ** (8 * width - 1), 4)} if count else {}


def simulated_seconds(options: Mapping[str, Any] | None, found: Classification, capability: Capability) -> float:
    """Minimum run time in seconds: the option `simulate_seconds`, scaled to this worker's capability; 0 without it.

    Raises RuntimeError if a worker of this capability cannot run the task.
    """
    if not possible(found.requires, capability):
        raise RuntimeError(f"{found.content_type} needs a GPU, and this is a {capability} worker")
    return estimate(float((options or {}).get("simulate_seconds") or 0), found.requires, capability)
