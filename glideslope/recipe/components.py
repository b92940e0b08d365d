"""The components of a release, a row each: the one table that loading, importing, packing, claims, cards, exports and checks read.

A component is a folder of a release, named as in model_index.json: a network, a tokenizer or a noise schedule. Rows are plain data;
`models.networks.components` holds the classes that they name. Whoever adds a network that recipes train adds a row, the class of its
settings and a field of `TrainedNetworks`, all three here, and `models/training/<name>.py`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .strict_model import Count, StrictModel
from .training import NUM_TRAIN_STEPS, DenoiserTraining, TrainingConfig

INDEX_NAME, CONFIG_NAME = "model_index.json", "config.json"
INDEX_FORMAT = "glideslope"
FORMAT_VERSION = 1  # of model_index.json and of every component's configuration


@dataclass(frozen=True)
class Published:
    """The checkpoint of a network that OpenAI published.

    Attributes:
        preset: its architecture, see `models.networks.presets`.
        files: prefix of tensors in the network -> the file that holds them, without its ending.
    """

    preset: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Network:
    """A network: a folder with its configuration and its weights.

    Attributes:
        name: of its folder and in messages.
        title: what cards and plots call it.
        class_name: its class, see `models.networks.components`.
        published: its published checkpoint; `None` where there is none.
        super_res: whether its input holds a smaller picture beside the noised one.
        inpaint: whether its input holds known pixels beside the noised ones.
        tokenizers: components that may hold its tokenizer: the first that a release has is the one, and the last is always there.
        scheduler: the component that holds its noise schedule.
        is_required: whether every release has it.
        trained_file: which of the weight files of its training is released; `None` where recipes do not train it.
        continues: the network that its training begins with; `None` where it begins with fresh weights.
    """

    name: str
    title: str
    class_name: str
    published: Published | None = None
    super_res: bool = False
    inpaint: bool = False
    tokenizers: tuple[str, ...] = ("tokenizer",)
    scheduler: str = "scheduler"
    is_required: bool = False
    trained_file: str | None = None
    continues: str | None = None
    file: str = CONFIG_NAME


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer: a folder with one file.

    Attributes:
        name: of its folder and in messages.
        trained_with: the network whose training writes it; `None` where no training does.
    """

    name: str
    trained_with: str | None = None
    class_name: str = "CaptionTokenizer"
    file: str = "tokenizer.json"


@dataclass(frozen=True)
class Scheduler:
    """A noise schedule: a folder with one file.

    Attributes:
        name: of its folder and in messages.
        schedule: the schedule that its networks are trained with, here and by OpenAI; `models.diffusion.process` computes it.
        trained_with: the network whose training writes it; `None` where no training does.
    """

    name: str
    schedule: str
    trained_with: str | None = None
    class_name: str = "GaussianDiffusion"
    file: str = "scheduler_config.json"


Component = Network | Tokenizer | Scheduler
UNET, CLIP = "TextConditionedUNet", "NoisedClip"

NETWORKS: Mapping[str, Network] = {row.name: row for row in (
    Network("base", "base model", UNET, Published("glide-base-64", {"": "base"}), is_required=True, trained_file="ema.safetensors"),
    Network("noised_clip", "noised CLIP", CLIP,
            Published("noised-clip-vit-b", {"image_encoder.": "clip_image_enc", "text_encoder.": "clip_text_enc"}),
            tokenizers=("clip_tokenizer", "tokenizer"), trained_file="model.safetensors"),
    Network("upsampler", "upsampler", UNET, Published("glide-upsampler-256", {"": "upsample"}), super_res=True,
            scheduler="upsampler_scheduler", trained_file="ema.safetensors"),
    Network("base_inpaint", "base model for inpainting", UNET, Published("glide-base-64-inpaint", {"": "base_inpaint"}), inpaint=True,
            trained_file="ema.safetensors", continues="base"),
    Network("upsampler_inpaint", "upsampler for inpainting", UNET, Published("glide-upsampler-256-inpaint", {"": "upsample_inpaint"}),
            super_res=True, inpaint=True, scheduler="upsampler_scheduler", trained_file="ema.safetensors", continues="upsampler"))}
TOKENIZERS: Mapping[str, Tokenizer] = {row.name: row for row in (
    Tokenizer("tokenizer", trained_with="base"),
    Tokenizer("clip_tokenizer"))}
SCHEDULERS: Mapping[str, Scheduler] = {row.name: row for row in (
    Scheduler("scheduler", "squaredcos_cap_v2", trained_with="base"),
    Scheduler("upsampler_scheduler", "linear", trained_with="upsampler"))}
COMPONENTS: Mapping[str, Component] = {**NETWORKS, **TOKENIZERS, **SCHEDULERS}

PUBLISHED: Mapping[str, Published] = {name: row.published for name, row in NETWORKS.items() if row.published is not None}
OPTIONAL_NETWORKS = tuple(name for name, row in NETWORKS.items() if not row.is_required)
TRAINED_NETWORKS = tuple(name for name, row in NETWORKS.items() if row.trained_file is not None)


class BaseTraining(DenoiserTraining):
    """The GLIDE base model and its training."""

    PACE = frozenset({"checkpoint_images", "sample_images"})
    preset: str = Field("glide-tiny-24", description="name in glideslope.models.networks.presets")
    vocab_size: Annotated[int, Field(ge=300)] = Field(2048, description="tokens of the byte-pair encoding trained on the captions")
    horizontal_flip: bool = Field(False, description="mirror half of the images; wrong where text or direction matters")
    text_images: Annotated[int, Field(ge=0)] = Field(
        20_000, description="images, repeats counted, from which the text transformer first learns what the run's CLIP sees in them; 0: none")
    sample_images: Count = Field(16_000, description="images between sample grids")


class NoisedClipTraining(TrainingConfig):
    """The noised CLIP and its training."""

    preset: str = Field("noised-clip-tiny-24", description="name in glideslope.models.networks.presets")


class UpsamplerTraining(DenoiserTraining):
    """The upsampler and its training."""

    preset: str = Field("glide-upsampler-tiny-96", description="name in glideslope.models.networks.presets")
    low_res_size: Annotated[int, Field(ge=8, le=1024)] = Field(24, description="side of the pictures to enlarge: what the base model draws")
    low_res_noise: Annotated[float, Field(ge=0, le=1)] = Field(
        0.08, description="most deviation of the noise on pictures to enlarge, pixels going from -1 to 1, for the base draws none quite clean")


class InpaintTraining(DenoiserTraining):
    """The base model for inpainting: fine-tuning of the base model."""

    preset: str = Field("glide-tiny-24", description="that of the network which is continued")
    whole_share: Annotated[float, Field(ge=0, le=1)] = Field(0.1, description="share of images erased whole, so that nothing is forgotten")


class UpsamplerInpaintTraining(UpsamplerTraining):
    """The upsampler for inpainting: fine-tuning of the upsampler."""

    whole_share: Annotated[float, Field(ge=0, le=1)] = Field(0.1, description="share of images erased whole, so that nothing is forgotten")


Training = BaseTraining | NoisedClipTraining | UpsamplerTraining | InpaintTraining | UpsamplerInpaintTraining


class TrainedNetworks(StrictModel):
    """The keys of a recipe that name networks to train, in the order of training; one that a recipe need not train is `None` without a key."""

    base: BaseTraining = Field(description="the base model")
    noised_clip: NoisedClipTraining = Field(description="the noised CLIP")
    upsampler: UpsamplerTraining | None = Field(None, description="the upsampler")
    base_inpaint: InpaintTraining | None = Field(None, description="the base model for inpainting")
    upsampler_inpaint: UpsamplerInpaintTraining | None = Field(None, description="the upsampler for inpainting")

    @property
    def trainings(self) -> dict[str, Training]:
        """Name of each network to train -> its settings."""
        settings = {name: getattr(self, name) for name in TrainedNetworks.model_fields}
        return {name: training for name, training in settings.items() if training is not None}


def drawing_networks(held: Collection[str]) -> tuple[str, ...]:
    """Of the networks that are held, those that a picture is drawn with unless something else is asked for."""
    return tuple(name for name in ("base", "upsampler") if name in held)


def required_components(held: Collection[str]) -> list[str]:
    """What a release of such components must have: the required networks, and tokenizer and noise schedule of every network."""
    rows = [row for row in NETWORKS.values() if row.is_required or row.name in held]
    needed = {name for row in rows for name in (row.tokenizers[-1], row.scheduler)} | {row.name for row in rows if row.is_required}
    return [name for name in COMPONENTS if name in needed]


def components_of(networks: Collection[str], held: Collection[str]) -> list[str]:
    """What networks draw with: themselves, their tokenizers, of which a release holds some, and their noise schedules."""
    rows = [NETWORKS[name] for name in networks]
    needed = {*networks, *(row.scheduler for row in rows)}
    needed |= {next((name for name in row.tokenizers if name in held), row.tokenizers[-1]) for row in rows}
    return [name for name in COMPONENTS if name in needed]


def model_index(components: Iterable[str]) -> dict[str, Any]:
    """What model_index.json holds for such components."""
    return {"_class_name": "GlidePipeline", "_format": INDEX_FORMAT, "_format_version": FORMAT_VERSION,
            **{name: [INDEX_FORMAT, COMPONENTS[name].class_name] for name in components}}


def scheduler_config(name: str, prediction_type: str = "epsilon") -> dict[str, Any]:
    """What scheduler_config.json holds in the folder of a noise schedule whose networks predict this, as the published ones do the noise."""
    row = SCHEDULERS[name]
    return {"_class_name": row.class_name, "_format_version": FORMAT_VERSION, "schedule": row.schedule, "prediction_type": prediction_type,
            "num_train_timesteps": NUM_TRAIN_STEPS}
