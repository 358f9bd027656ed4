"""Audio and video, by MediaInfo: playing time and resolution of every common container, from its headers."""

from typing import Any

from morag_queue.core.model import ContentType

from .found import Found
from .opened import Bounded

_SECONDS_MAX = 10 * 365 * 86_400  # a header that claims more than ten years is broken


def read_media(file: Bounded, mime: str | None) -> Found | None:
    """What the tracks say; None where MediaInfo finds no track that plays or shows."""
    from pymediainfo import MediaInfo

    tracks: dict[str, Any] = {}
    for track in MediaInfo.parse(file).tracks:
        tracks.setdefault(track.track_type, track)
    general, shown = tracks.get("General"), tracks.get("Video") or tracks.get("Image")
    mime = getattr(general, "internet_media_type", None) or mime
    width, height = _whole(shown, "width"), _whole(shown, "height")
    if "Image" in tracks and "Video" not in tracks and "Audio" not in tracks:
        return Found(ContentType.IMAGE, mime, width=width, height=height)
    kind = ContentType.VIDEO if "Video" in tracks else ContentType.AUDIO if "Audio" in tracks else None
    if kind is None:
        return None
    seconds = max((_seconds(track) for track in tracks.values()), default=0.0)
    problems = () if seconds else ("its playing time is not stated",)
    if seconds > _SECONDS_MAX:
        seconds, problems = 0.0, ("it claims to play for more than ten years",)
    if kind is ContentType.AUDIO:
        width = height = None
    return Found(kind, mime, seconds or None, width, height, problems=problems)


def _seconds(track: Any) -> float:
    """MediaInfo gives milliseconds, as a number or as text."""
    try:
        return float(track.duration or 0) / 1000
    except (TypeError, ValueError):
        return 0.0


def _whole(track: Any, name: str) -> int | None:
    value = getattr(track, name, None)
    return value if isinstance(value, int) and value > 0 else None
