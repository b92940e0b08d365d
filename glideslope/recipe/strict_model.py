"""The base of everything that is read from a file with typed keys, and the numbers that such keys often are."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class StrictModel(BaseModel):
    """Base of every part of a recipe: immutable, strictly typed, no unknown keys.

    Attributes:
        PACE: keys that only say how often something is written, or how much is done at once: no result depends on them, so they are
            no part of a stage's identity and may change while it runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    PACE: ClassVar[frozenset[str]] = frozenset()


def describe_problem(problem: Any) -> str:
    """One validation problem as `key: what is wrong (got ...)`."""
    key = ".".join(str(part) for part in problem["loc"] if part not in ("openmoji", "folder", "datasets", "webdataset", "parquet"))
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; see `glideslope init` for the keys there are"
    if problem["type"] == "missing":
        return f"{key}: required key is missing"
    told = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # a rule over several keys: its text names them
        return f"{key}: {told}" if key else told
    hint = "; in YAML a number with an exponent needs a point, as in 1.0e-3" if problem["type"] == "float_type" else ""
    return f"{key}: {told} (got {problem['input']!r:.60}{hint})"
