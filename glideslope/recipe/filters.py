"""What is filtered out and how: the CLIP, the index, labels, categories, the curated set, and the report on them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .strict_model import Count, Share, StrictModel


class ClipConfig(StrictModel):
    """The CLIP that embeds the images for the classifiers and scores pictures against captions."""

    PACE = frozenset({"batch_size"})
    model: str = Field("lite0", description="`lite0`, an open_clip name, `hf-hub:<repository>` or `local-dir:<path>`")
    pretrained: str | None = Field(None, description="open_clip's pretrained tag or a weight file; for open_clip names only")
    batch_size: Count | None = Field(None, description="images embedded at once; none: 16 on a CPU, as many as fit on a GPU")
    text_epochs: Annotated[int, Field(ge=0)] = Field(10, description="lite0 only: epochs of text tower training on the run's captions")
    text_batch_size: Count = Field(256, description="lite0 only: image-caption pairs per contrastive batch")
    text_learning_rate: Annotated[float, Field(gt=0)] = Field(2e-3, description="lite0 only: peak learning rate of the text tower")


class IndexConfig(StrictModel):
    """How the inputs are read and embedded."""

    shard_size: Count = Field(256, description="inputs per index shard where the source has no shards of its own; the unit of resuming")
    max_pixels: Count = Field(50_000_000, description="a larger image is refused as a decompression bomb, in pixels")


class LabelsConfig(StrictModel):
    """How labels get their roles: by hash of the concept, so that variants of one concept never straddle roles."""

    train_share: Share = Field(0.65, description="share of concepts whose labels fit classifiers and, scored by a classifier that "
                               "was fitted without them, set thresholds")
    calibrate_share: Share = Field(0.1, description="share of concepts whose labels set thresholds and test probabilities only; the rest "
                                   "measures the filters")
    salt: str = Field("glideslope", description="text hashed with the concept; another salt draws other roles")

    @model_validator(mode="after")
    def _leaves_a_test(self) -> Self:
        if self.train_share + self.calibrate_share >= 1:
            raise ValueError("train_share + calibrate_share must stay below 1, so that labels are left for the test")
        return self


class Detector(StrictModel):
    """A second opinion from outside: scores that another tool gave to the same inputs (a face detector, say)."""

    PLACES = frozenset({"path"})
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")] = Field(description="short name, used in reasons")
    path: str = Field(description="CSV or parquet file with the columns key and score; an input without a score is dropped")
    threshold: float = Field(description="a score of at least this drops the image")


CaptionWord = Annotated[str, Field(pattern=r"^[^|]*[^\W_|][^|]*$")]  # with a letter or digit, and without the bar between captions
ClassifierName = Literal["rbf_svm", "logistic", "mlp", "zero_shot"]


class Category(StrictModel):
    """One thing that must not be learned: its specification, and how it is found. Dropped if any judge says so."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")] = Field(description="short name, used in paths and reasons")
    counts: Annotated[str, Field(min_length=10)] = Field(description="what counts as this category, in a sentence")
    does_not_count: str = Field("", description="what looks close but does not count")
    examples: tuple[str, ...] = Field((), strict=False, description="short descriptions of images that count, for whoever labels")
    max_train_labels: Annotated[int, Field(ge=2)] = Field(4000, description="label budget: most train labels the classifier may use")
    target_recall: Share = Field(0.99, description="share of positives that the threshold is set to catch")
    classifiers: Annotated[tuple[ClassifierName, ...], Field(min_length=1, strict=False)] = Field(
        ("rbf_svm", "logistic", "mlp"), description="kinds to choose from by cross-validated kept share at the target recall")
    kernel_gamma: Annotated[float, Field(gt=0)] | None = Field(
        None, description="narrowness of the RBF kernel; rare and varied: higher; none: chosen by cross-validation")
    prompts: tuple[str, ...] = Field((), strict=False, description="captions that describe the category, for zero_shot; none: its name")
    caption_words: tuple[CaptionWord, ...] = Field(
        (), strict=False, description="an image whose caption has one of these as whole words is dropped; signs only separate words")
    detectors: tuple[Detector, ...] = Field((), strict=False, description="second opinions from outside")


class CurateConfig(StrictModel):
    """How the curated set is written."""

    shard_size: Count = Field(1024, description="most images per parquet file")
    validation_share: Annotated[float, Field(ge=0, lt=1)] = Field(0.05, description="share of kept concepts held back from training")
    captions: Literal["required", "optional"] = Field(
        "required", description="required: an image without a caption is dropped; optional: it is kept, but training is refused")


class WordGroup(StrictModel):
    """Captions that have one of some words, as a group for figures."""

    name: Annotated[str, Field(min_length=1, max_length=60)] = Field(description="the group's name")
    words: Annotated[tuple[CaptionWord, ...], Field(min_length=1, strict=False)] = Field(
        description="words and phrases, in any case; a caption with one of them as whole words belongs to the group")


class AttributeValue(StrictModel):
    """One value of an attribute, and the caption that describes it."""

    value: Annotated[str, Field(min_length=1, max_length=60)] = Field(description="short name of the value")
    prompt: Annotated[str, Field(min_length=1)] = Field(description="caption of an image that has it, for example `a photo of a woman`")


class Attribute(StrictModel):
    """A group that a CLIP guesses: an image has the value whose prompt it is closest to."""

    name: Annotated[str, Field(min_length=1, max_length=60)] = Field(description="the attribute's name")
    values: Annotated[tuple[AttributeValue, ...], Field(min_length=2, strict=False)] = Field(
        description="all values, one for `none of these` included")


class ReportConfig(StrictModel):
    """The groups that report.html and the comparison of runs give figures for, beyond those of the labels."""

    word_groups: tuple[WordGroup, ...] = Field((), strict=False, description="further groups; one with a built-in name replaces it")
    attributes: tuple[Attribute, ...] = Field((), strict=False, description="groups that the run's CLIP guesses; it needs a text tower")
