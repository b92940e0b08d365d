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
        PLACES: keys that hold places on one machine. What lies there is known by its digest: places are no part of a stage's identity, and
            a release keeps their last part only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    PACE: ClassVar[frozenset[str]] = frozenset()
    PLACES: ClassVar[frozenset[str]] = frozenset()

    def without_places(self) -> dict[str, Any]:
        """This part as plain data, without the places in it and in its own parts."""
        plain = self.model_dump(mode="json", exclude=set(self.PLACES))
        for name in plain:
            value = getattr(self, name)
            if isinstance(value, StrictModel):
                plain[name] = value.without_places()
            elif isinstance(value, tuple) and value and isinstance(value[0], StrictModel):
                plain[name] = [part.without_places() for part in value]
        return plain


def describe_problem(problem: Any) -> str:
    """One validation problem as `key: what is wrong (got ...)`."""
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; see `glideslope init` for the keys there are"
    if problem["type"] == "missing":
        return f"{key}: required key is missing"
    told = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # a rule over several keys: its text names them
        return f"{key}: {told}" if key else told
    hint = "; in YAML a number with an exponent needs a point, as in 1.0e-3" if problem["type"] == "float_type" else ""
    return f"{key}: {told} (got {problem['input']!r:.60}{hint})"
