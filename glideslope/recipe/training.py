"""How networks are trained, and the pictures drawn to show that captions count."""

import math
from typing import Annotated, Literal

from pydantic import Field

from .strict_model import Count, StrictModel

NUM_TRAIN_STEPS = 1000  # of the schedule that the networks are trained with
Scale = Annotated[float, Field(ge=0, le=1000)]  # of guidance, as far as drawing takes it


class TrainingConfig(StrictModel):
    """The optimisation that all trainings share; what is a network's own stands in `components`."""

    PACE = frozenset({"checkpoint_images"})
    batch_size: Count = Field(32, description="images per step")
    num_images: Count = Field(description="images to train on, repeats counted; rounded up to whole steps")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak learning rate of AdamW")
    warmup_images: Annotated[int, Field(ge=0)] = Field(1000, description="images over which the learning rate rises linearly")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's decoupled weight decay")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="bfloat16 runs the network under autocast; auto: bfloat16 where the device computes it faster, else float32")
    checkpoint_images: Count = Field(8000, description="images between checkpoints, the unit of resuming")

    @property
    def num_steps(self) -> int:
        """How many steps it takes."""
        return math.ceil(self.num_images / self.batch_size)

    @property
    def num_parts(self) -> int:
        """In how many parts a process computes its share of a step."""
        return 1


class DenoiserTraining(TrainingConfig):
    """What the trainings of all GLIDE U-Nets share."""

    preset: str = Field(description="name in glideslope.models.networks.presets")
    caption_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="share of captions dropped for classifier-free guidance")
    ema_half_life_images: Count = Field(20_000, description="images after which the average has forgotten half; shorter at the start")
    prediction_type: Literal["sample", "epsilon"] = Field(
        "sample", description="what is predicted: the image (arXiv 2202.00512, section 4), or the noise, as by the published models")
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = Field(
        5.0, description="most that the error of an image with little noise counts (arXiv 2303.09556); none: no bound")
    accumulation: Count = Field(1, description="parts that a step is computed in, to need less memory; batch_size counts all of them")

    @property
    def num_parts(self) -> int:
        """In how many parts a process computes its share of a step."""
        return self.accumulation


class EvaluateConfig(StrictModel):
    """The pictures drawn to show that captions count."""

    num_pairs: Annotated[int, Field(ge=1, le=2048)] = Field(64, description="prompt-seed pairs; a sheet of more opens in few programs")
    captions_from: Literal["validation", "train"] = Field(
        "validation", description="take captions held back from training first, or captions that were trained on")
    num_steps: Annotated[int, Field(ge=1, le=NUM_TRAIN_STEPS)] = Field(50, description="denoising steps per picture, at most the schedule's")
    guidance_scale: Scale = Field(3.0, description="classifier-free guidance scale; 1 is none")
    sweep_scales: Annotated[tuple[Scale, ...], Field(strict=False)] = Field(
        (), description="further guidance scales to draw the first pairs with, for the card's table of what guidance does")
    sweep_pairs: Count = Field(16, description="how many pairs are drawn with each of them")
