"""Check a notebook's parameters, including those that papermill injected."""

from __future__ import annotations

import ast
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ..errors import describe


def injected_names(history: list[str]) -> list[str]:
    """Names assigned in papermill's injected cell, in order; empty without such a cell."""
    for source in reversed(history):
        if source.startswith("# Parameters\n"):
            targets = [s.targets[0] for s in ast.parse(source).body if isinstance(s, ast.Assign)]
            return [t.id for t in targets if isinstance(t, ast.Name)]
    return []


def check_parameters(namespace: dict[str, Any], schema: type[BaseModel] | None = None, **types: Any) -> None:
    """Refuse unknown injected names and bad values with one sentence (:class:`InputError`).

    ``namespace`` is the notebook's ``globals()``; ``types`` maps every parameter to a type that
    pydantic understands (``seed=NonNegativeInt``), or ``schema`` is a pydantic class that has the
    parameters as fields.  Checked values (an int given for a float, say) are written back.
    """
    if schema is None:
        fields: dict[str, Any] = {name: (kind, ...) for name, kind in types.items()}
        schema = create_model(
            "Parameters", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields
        )
    known = list(schema.model_fields)
    names = [n for n in known if n in namespace]
    names += [n for n in injected_names(namespace.get("In", [])) if n not in names]
    try:
        checked = schema.model_validate({name: namespace[name] for name in names})
    except ValidationError as error:
        raise describe(error, known) from None
    namespace.update({name: getattr(checked, name) for name in names})
