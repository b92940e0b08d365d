"""What the release says of itself, and what it is made of beside its evidence."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .strict_model import StrictModel


class ReleaseConfig(StrictModel):
    """What the release says of itself beyond its evidence."""

    PLACES = frozenset({"terms_of_use", "companions"})
    title: Annotated[str, Field(min_length=1)] = Field("glideslope model", description="the model's name on the card")
    license: str = Field("apache-2.0", description="licence identifier of the weights, as the Hub spells it")
    data_attribution: str = Field("", description="credit that the data's licence asks for")
    homepage: Annotated[str, Field(pattern=r"^(https?://\S+)?$", max_length=200)] = Field("", description="address of a page about the model")
    citation: str = Field("", description="how to cite the model, BibTeX say")
    languages: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...], Field(min_length=1, strict=False)] = Field(
        ("en",), description="languages of the captions, by their two-letter or three-letter codes")
    tags: Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,60}$")], ...], Field(strict=False)] = Field(
        (), description="further tags for the Hub")
    blurred: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="categories whose pictures the card shows blurred: what their filters missed")
    terms_of_use: str | None = Field(None, description="file with the terms of use, released as USE_POLICY.md; none: the built-in ones")
    variants: Annotated[tuple[Literal["fp16", "bf16"], ...], Field(strict=False)] = Field(
        (), description="smaller copies of the weights: fp16, bf16; each is the exact cast of the full ones")
    max_shard_mb: Annotated[int, Field(ge=1)] = Field(4000, description="most megabytes (10^6 bytes) of values in one weight file")
    companions: str | None = Field(None, description="directory of further networks to pack beside the trained ones (upsampler, base_inpaint, "
                                   "upsampler_inpaint, clip_tokenizer), as `glideslope release import-openai` writes; none: no such networks")
    golden_prompts: Annotated[int, Field(ge=0, le=64)] = Field(2, description="pictures whose digests show after loading that nothing changed")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for name, values in (("variants", self.variants), ("languages", self.languages)):
            if len(set(values)) != len(values):
                raise ValueError(f"release.{name} must differ, got {list(values)}")
        return self
