"""The recipe: one frozen, typed model per stage, every field with a sentence. Unknown keys are errors."""

from typing import Annotated, Self

from pydantic import Field, InstanceOf, SerializeAsAny, model_validator

from .components import TrainedNetworks
from .filters import Category, ClipConfig, CurateConfig, IndexConfig, LabelsConfig, ReportConfig
from .release import ReleaseConfig
from .sources import SourceSettings
from .strict_model import StrictModel
from .training import EvaluateConfig


class Curation(StrictModel):
    """The keys of a recipe that come first: what is filtered out of which images."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")] = Field(description="name of the run and its directory")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="seed of everything that draws random numbers")
    policy: str | None = Field(None, description="file that says how good the release must be, beside this one; none: the built-in policy")
    source: SerializeAsAny[InstanceOf[SourceSettings]] = Field(description="where the images and captions come from")
    clip: ClipConfig = Field(ClipConfig())
    index: IndexConfig = Field(IndexConfig())
    labels: LabelsConfig = Field(LabelsConfig())
    categories: Annotated[tuple[Category, ...], Field(min_length=1, strict=False)] = Field(description="what is filtered out")
    curate: CurateConfig = Field(CurateConfig())
    report: ReportConfig = Field(ReportConfig())


class Recipe(TrainedNetworks, Curation):
    """A whole run: the keys of `Curation`, then those of `TrainedNetworks`, then these."""

    evaluate: EvaluateConfig = Field(EvaluateConfig())
    release: ReleaseConfig = Field(ReleaseConfig())

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [category.name for category in self.categories]
        if len(set(names)) != len(names):
            raise ValueError(f"category names must differ, got {names}")
        if unknown := sorted(set(self.release.blurred) - set(names)):
            raise ValueError(f"release.blurred names {unknown}, which are no categories of this recipe ({names})")
        return self

    @model_validator(mode="after")
    def _optional_captions_are_not_needed(self) -> Self:
        if self.curate.captions == "required":
            return self
        needs = [f"caption_words of {category.name}" for category in self.categories if category.caption_words]
        if self.clip.model == "lite0":
            needs += [f"zero_shot of {one.name} with clip.model lite0" for one in self.categories if "zero_shot" in one.classifiers]
            needs += ["report.attributes with clip.model lite0"] if self.report.attributes else []
        if needs:
            raise ValueError(f"curate.captions is optional, but captions are needed by {', '.join(needs)} (lite0 learns its text tower from "
                             "them); remove these, or set curate.captions to required")
        return self
