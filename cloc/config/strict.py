"""What every part of the config has in common."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Strict(BaseModel):
    """Unknown keys are refused, numbers are finite, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for name, field in cls.model_fields.items():
            kinds = _kinds(field.annotation)
            if isinstance(values.get(name), bool) and bool not in kinds and (int in kinds or float in kinds):
                raise ValueError(f"{name}: expected a number, got {str(values[name]).lower()}")
        return values


def _kinds(annotation: Any) -> list[Any]:
    """A type, or those that a union or an annotated one is made of."""
    return [annotation, *(kind for part in get_args(annotation) for kind in _kinds(part))]
