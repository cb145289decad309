"""What is generated from the configuration structs: the JSON schema and the reference table.

Both are committed (tripgate.schema.json for editors, the table in docs/limits.md) and a test
compares them with what these functions return.
"""

import json
from decimal import Decimal

from tripgate.config.rules import LIMIT
from tripgate.config.shape import Field, StructType, fields
from tripgate.config.structs import Config

SCHEMA_FILE = "tripgate.schema.json"
TABLE_BEGIN = "<!-- generated table: begin -->"
TABLE_END = "<!-- generated table: end -->"


def _json_default(field: Field) -> object:
    value = field.default
    return float(value) if isinstance(value, Decimal) else field.leaf_rule.plain(value)


def _field_schema(field: Field) -> dict[str, object]:
    if field.table is None:
        rule = field.leaf_rule
        schema: dict[str, object] = {"description": field.description, **rule.schema}
        if not field.is_required and field.default is not None:
            schema["default"] = _json_default(field)
        return schema
    if field.names is None:
        return _table_schema(field.table)
    return {
        "type": "object",
        "propertyNames": dict(field.names.schema),
        "additionalProperties": _table_schema(field.table),
    }


def _table_schema(struct: StructType) -> dict[str, object]:
    shapes = fields(struct)
    return {
        "type": "object",
        "description": (struct.__doc__ or "").strip(),
        "properties": {field.name: _field_schema(field) for field in shapes},
        "required": [field.name for field in shapes if field.is_required],
        "additionalProperties": False,
    }


def schema_text() -> str:
    """Return the JSON schema (draft 2020-12) of tripgate.toml, as shipped."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tripgate.toml",
        **_table_schema(Config),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _rows(struct: StructType, path: str) -> list[str]:
    rows = []
    for field in fields(struct):
        here = f"{path}.{field.name}" if path else field.name
        if field.table is not None:
            rows += _rows(field.table, here if field.names is None else f"{here}.NAME")
            continue
        rule = field.leaf_rule
        if field.is_required:
            default = "mandatory"
        elif field.default is None:
            default = "absent"
        else:
            default = f"`{json.dumps(_json_default(field))}`"
        expected = rule.expected.replace("|", "\\|")
        unit = " (reporting currency)" if rule is LIMIT or "_reporting" in field.name else ""
        description = field.description.replace("|", "\\|")
        rows.append(f"| `{here}` | {expected}{unit} | {default} | {description} |")
    return rows


def limits_table() -> str:
    """Return the Markdown table of every key, with what it takes and its default."""
    head = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *_rows(Config, "")]) + "\n"
