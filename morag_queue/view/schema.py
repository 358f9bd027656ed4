"""JSON schemas of answers as `view.output` writes them: times in ISO 8601, priorities by name."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from morag_queue.core.model import QueuePriority

from .output import is_time_name

MAY_BE_MISSING: dict[str, Any] = {"x-may-be-missing": True}
"""Schema extra of a field that some answers omit."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(model: type[BaseModel], *, strict: bool = False) -> dict[str, Any]:
    """Return the schema of a model's JSON document.

    Later versions may add fields to an answer, so the schema allows them; with `strict` it forbids them.
    """
    schema = model.model_json_schema(mode="serialization", schema_generator=_Generator)
    _as_written(schema, strict)
    return {"$schema": DIALECT, **schema}


class _Generator(GenerateJsonSchema):
    def enum_schema(self, schema: Any) -> JsonSchemaValue:
        if schema["cls"] is QueuePriority:
            return {"type": "string", "enum": [priority.name for priority in QueuePriority]}
        return super().enum_schema(schema)


def _as_written(schema: Any, strict: bool) -> None:
    """Change a schema in place to describe what `output.plain` writes."""
    if isinstance(schema, list):
        for item in schema:
            _as_written(item, strict)
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    if isinstance(properties, dict):
        optional = {name for name, field in properties.items() if field.pop("x-may-be-missing", False)}
        if optional:
            schema["required"] = [name for name in schema.get("required", ()) if name not in optional]
        for name, field in properties.items():
            if is_time_name(name) and _is_number(field):
                properties[name] = _time(field)
        if not strict:
            schema.pop("additionalProperties", None)
    for item in schema.values():
        _as_written(item, strict)


def _is_number(field: dict[str, Any]) -> bool:
    types = {field.get("type"), *(option.get("type") for option in field.get("anyOf", ()))}
    return "number" in types or "integer" in types


def _time(field: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {name: field[name] for name in ("title", "description") if name in field}
    return {"type": ["string", "null"], "format": "date-time"} | kept
