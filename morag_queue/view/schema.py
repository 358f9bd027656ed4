"""The JSON schema of an answer, as `view.output` writes it: times are ISO 8601, a priority is its word."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from morag_queue.core.model import QueuePriority

from .output import is_time_name

MAY_BE_MISSING: dict[str, Any] = {"x-may-be-missing": True}
"""Marks a field that some answers leave out."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(model: type[BaseModel], *, strict: bool = False) -> dict[str, Any]:
    """What the model's JSON document looks like.

    An answer may get more fields in a later version; with `strict`, the schema knows all that there are now.
    """
    schema = model.model_json_schema(mode="serialization", schema_generator=_Generator)
    _as_written(schema, strict)
    return {"$schema": DIALECT, **schema}


class _Generator(GenerateJsonSchema):
    def enum_schema(self, schema: Any) -> JsonSchemaValue:
        if schema["cls"] is QueuePriority:
            return {"type": "string", "enum": [one.name for one in QueuePriority]}
        return super().enum_schema(schema)


def _as_written(part: Any, strict: bool) -> None:
    """Changes a schema in place to what `output.plain` makes of its models."""
    if isinstance(part, list):
        for one in part:
            _as_written(one, strict)
    if not isinstance(part, dict):
        return
    properties = part.get("properties")
    if isinstance(properties, dict):
        missing = {name for name, one in properties.items() if one.pop("x-may-be-missing", False)}
        if missing:
            part["required"] = [name for name in part.get("required", ()) if name not in missing]
        for name, one in properties.items():
            if is_time_name(name) and _is_number(one):
                properties[name] = _time(one)
        if not strict:
            part.pop("additionalProperties", None)
    for one in part.values():
        _as_written(one, strict)


def _is_number(one: dict[str, Any]) -> bool:
    kinds = {one.get("type"), *(each.get("type") for each in one.get("anyOf", ()))}
    return "number" in kinds or "integer" in kinds


def _time(one: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {name: one[name] for name in ("title", "description") if name in one}
    return {"type": ["string", "null"], "format": "date-time"} | said
