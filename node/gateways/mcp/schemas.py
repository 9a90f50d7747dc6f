"""The JSON schemas of tools: what each field means is said in them, for the models that read them."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core.core_schema import ModelSchema

from node.gateways.http.attribute_docs import attribute_docs
from protocol import JsonObject


def schema_of(model: type[BaseModel], mode: JsonSchemaMode) -> JsonObject:
    """Return the JSON schema of a model, with the text below each field as its description.

    Args:
        model: which.
        mode: whether for what is taken (``validation``) or for what is given (``serialization``).
    """
    return model.model_json_schema(mode=mode, schema_generator=_Described)


class _Described(GenerateJsonSchema):
    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        """Return the schema of a model with its fields described."""
        shape = super().model_schema(schema)
        for name, meaning in attribute_docs(schema["cls"]).items():
            shape["properties"][name].setdefault("description", meaning)
        return shape
