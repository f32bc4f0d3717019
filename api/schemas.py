"""JSON Schemas of our own types, in the dialect of OpenAPI 3.0 that the service before this one spoke."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import TypeAdapter

from api.params import PredictionInput
from shared.manifest import EXACT, Manifest

OPENAPI_VERSION = "3.0.3"
REF = "#/components/schemas/{model}"

OUTPUT_SCHEMA: dict[str, Any] = {"title": "Output", "type": "string", "format": "uri"}
"""One picture's address, as of every order that asks for one. A list here would make the official Python client hand out an
iterator for those too."""


def schemas_of(types: Iterable[Any]) -> dict[str, Any]:
    """Return `components.schemas` for classes and every class that they refer to, by name."""
    mode: Literal["validation"] = "validation"
    adapters = [(kind, mode, TypeAdapter(kind)) for kind in types]
    _, document = TypeAdapter.json_schemas(adapters, ref_template=REF)
    found: dict[str, Any] = _to_openapi(document["$defs"])
    return found


def model_schema(manifest: Manifest) -> dict[str, Any]:
    """Return the document that a model version carries: `components.schemas.Input` and `.Output`."""
    schema: dict[str, Any] = _to_openapi(TypeAdapter(PredictionInput).json_schema(ref_template=REF))
    schema["properties"]["guidance_mode"]["default"] = manifest.render.guidance_mode
    negative = schema["properties"]["negative_prompt"]
    if manifest.prompt.negative_prompt:
        negative["default"] = manifest.prompt.negative_prompt
    schema["properties"]["profile"]["enum"] = [EXACT, *manifest.profiles]
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": manifest.slug, "version": manifest.version[:12]},
        "paths": {},
        "components": {"schemas": {"Input": schema, "Output": OUTPUT_SCHEMA}},
    }


def _to_openapi(schema: Any) -> Any:
    """Rewrite what JSON Schema 2020-12 says differently from OpenAPI 3.0: null, constants, examples, siblings of `$ref`."""
    if isinstance(schema, list):
        return [_to_openapi(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: _to_openapi(value) for name, value in schema.items() if name not in ("anyOf", "const", "examples", "$ref")}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if isinstance(schema.get("examples"), list):
        result["example"] = schema["examples"][0]
    options = [_to_openapi(option) for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) < len(schema.get("anyOf", ())):
        result["nullable"] = True
    if "$ref" in schema:
        options = [{"$ref": schema["$ref"]}]
    if len(options) > 1:
        result["anyOf"] = options
    elif options and "$ref" in options[0]:
        result = {"allOf": options, **result} if result else options[0]
    elif options:
        result = {**options[0], **result}
    return result
