"""The components of a release, a row each: the one table that loading, importing, packing, claims, cards, exports and checks read.

A component is a folder of a release, named as in model_index.json: a network, a tokenizer or a noise schedule. Rows are plain data;
`models.networks.components` holds the classes that they name.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

INDEX_NAME, CONFIG_NAME = "model_index.json", "config.json"
INDEX_FORMAT = "glideslope"
FORMAT_VERSION = 1  # of model_index.json and of every component's configuration
NUM_TRAIN_STEPS = 1000  # of the noise schedules that the networks are trained with


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
        trained_file: which of the weight files of its training is released; `None` where no recipe trains it.
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
            scheduler="upsampler_scheduler"),
    Network("base_inpaint", "base model for inpainting", UNET, Published("glide-base-64-inpaint", {"": "base_inpaint"}), inpaint=True),
    Network("upsampler_inpaint", "upsampler for inpainting", UNET, Published("glide-upsampler-256-inpaint", {"": "upsample_inpaint"}),
            super_res=True, inpaint=True, scheduler="upsampler_scheduler"))}
TOKENIZERS: Mapping[str, Tokenizer] = {row.name: row for row in (
    Tokenizer("tokenizer", trained_with="base"),
    Tokenizer("clip_tokenizer"))}
SCHEDULERS: Mapping[str, Scheduler] = {row.name: row for row in (
    Scheduler("scheduler", "squaredcos_cap_v2", trained_with="base"),
    Scheduler("upsampler_scheduler", "linear"))}
COMPONENTS: Mapping[str, Component] = {**NETWORKS, **TOKENIZERS, **SCHEDULERS}

PUBLISHED: Mapping[str, Published] = {name: row.published for name, row in NETWORKS.items() if row.published is not None}
OPTIONAL_NETWORKS = tuple(name for name, row in NETWORKS.items() if not row.is_required)
TRAINED_NETWORKS = tuple(name for name, row in NETWORKS.items() if row.trained_file is not None)


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


def scheduler_config(name: str) -> dict[str, Any]:
    """What scheduler_config.json holds in the folder of a noise schedule."""
    row = SCHEDULERS[name]
    return {"_class_name": row.class_name, "_format_version": FORMAT_VERSION, "schedule": row.schedule, "num_train_timesteps": NUM_TRAIN_STEPS}
