"""One class for every CLIP: the built-in `lite0`, whatever open_clip can load, and a model that is loaded already."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..device.torch_state import PlainTorch
from ..errors import CheckpointError, RecipeError, RequestError, StageError
from ..pictures.decode import Pixels
from ..recipe.filters import ClipConfig
from ..text.one_line import one_line
from . import lite0
from .crops import three_crops
from .towers import embed_captions

Embeddings = NDArray[np.float32]
Crops = tuple[list[Pixels], list[float]]
CPU_BATCH = 16
TEXT_BATCH = 256
MOST_GPU_BATCH = 512  # larger batches do not embed faster, and their crops fill the main memory

log = logging.getLogger(__name__)


@dataclass
class Clip:
    """A CLIP that embeds images and, where it has a text tower, captions.

    Attributes:
        name: what the recipe calls it.
        model: an open_clip model, in evaluation mode.
        image_size: side of the square that the image tower takes, in pixels.
        pixel_mean, pixel_std: of pixels in [0, 1], per channel.
        tokenize: captions -> int64 (N, context); None when there is no text tower yet.
        image_mean: float32 (M,), taken off the first M numbers of image embeddings before they are compared with text; None: nothing.
        batch_size: crops per forward pass; halved for good when a GPU runs out of memory.
        find_cut: captions -> whether each is longer than the text tower reads; None when there is no text tower yet.
    """

    name: str
    model: nn.Module
    image_size: int
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    tokenize: Callable[[list[str]], Tensor] | None
    image_mean: Tensor | None = None
    batch_size: int = CPU_BATCH
    find_cut: Callable[[list[str]], list[bool]] | None = None

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Callable[..., Any], *, name: str = "open_clip") -> "Clip":
        """Wrap a model that open_clip made; its image size and pixel statistics are read from it.

        Args:
            model: a CLIP or CustomTextCLIP, such as `open_clip.create_model` returns.
            tokenizer: what `open_clip.get_tokenizer` gives for it.
            name: for messages.

        Raises:
            RequestError: the model does not say how its pixels are normalised.
        """
        settings: Any = getattr(getattr(model, "visual", None), "preprocess_cfg", None)
        if settings is None:
            raise RequestError(f"clip: {type(model).__name__} does not say how its pixels are normalised (visual.preprocess_cfg); make it with "
                               "open_clip.create_model, or give Clip its statistics")
        size = settings["size"]

        def tokenize(captions: list[str]) -> Tensor:
            return torch.as_tensor(tokenizer(captions))

        def find_cut(captions: list[str]) -> list[bool]:
            return find_longer(tokenizer, captions)

        return cls(name, model.eval(), size if isinstance(size, int) else size[0], tuple(settings["mean"]), tuple(settings["std"]), tokenize,
                   find_cut=find_cut)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    def embed_images(self, images: Sequence[Pixels]) -> Embeddings:
        """Embed by GLIDE's three crops: the normalised mean of the crops' normalised embeddings.

        Identical crops are computed once, so a square image costs one forward pass.

        Args:
            images: uint8 (height, width, 3) each.

        Returns:
            float32 (N, D), each row of length 1.
        """
        return self.embed_crops([self.crop(pixels) for pixels in images])

    def crop(self, pixels: Pixels) -> Crops:
        """The distinct ones of an image's three crops, and the weight of each in their mean; see `three_crops`."""
        return three_crops(pixels, self.image_size)

    def embed_crops(self, images: Sequence[Crops]) -> Embeddings:
        """Embed images that `crop` has cut: float32 (N, D), each row of length 1.

        Raises:
            StageError: a single crop does not fit into the GPU's memory.
        """
        embedded = self._embed_pixels([crop for crops, _ in images for crop in crops])
        pooled, start = [], 0
        for crops, weights in images:
            pooled.append(np.average(embedded[start:start + len(crops)], axis=0, weights=weights))
            start += len(crops)
        return normalise(np.stack(pooled).astype(np.float32)) if pooled else np.zeros((0, 0), np.float32)

    def _embed_pixels(self, crops: Sequence[Pixels]) -> Embeddings:
        found, start = [], 0
        while start < len(crops):
            batch_size = self.batch_size
            try:
                found.append(self._forward(np.stack(crops[start:start + batch_size])))
                start += batch_size
                continue
            except torch.OutOfMemoryError as error:
                if batch_size == 1:
                    raise StageError(f"clip: a single image of {self.image_size} pixels does not fit into the memory of {self.device}; "
                                     "free it, or run on a CPU with CUDA_VISIBLE_DEVICES=''") from error
            # outside of the handler: the exception holds on to what the failed pass had allocated
            self.batch_size = batch_size // 2
            log.warning("clip: out of memory on %s with %d images at once; going on with %d", self.device, batch_size, self.batch_size)
            torch.cuda.empty_cache()
        return np.concatenate(found) if found else np.zeros((0, 0), np.float32)

    @PlainTorch()
    @torch.inference_mode()
    def _forward(self, pixels: Pixels) -> Embeddings:
        """One forward pass: uint8 (N, size, size, 3) -> float32 (N, D), each row of length 1."""
        mean, std = ((torch.tensor(values, device=self.device) * 255).repeat(self.image_size) for values in (self.pixel_mean, self.pixel_std))
        model: Any = self.model
        dtype = next(self.model.parameters()).dtype
        x = torch.from_numpy(pixels).to(self.device).float()
        x.flatten(2).sub_(mean).div_(std)  # whole rows at a time: four times as fast as three channels at a time
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        return np.asarray(functional.normalize(model.encode_image(x.to(dtype)).float(), dim=-1).cpu().numpy())

    def find_batch_size(self) -> int:
        """The largest power of two, at most MOST_GPU_BATCH, of crops that fit into the memory at once."""
        batch_size = 1
        while batch_size < MOST_GPU_BATCH:
            try:
                self._forward(np.zeros((2 * batch_size, self.image_size, self.image_size, 3), np.uint8))
            except torch.OutOfMemoryError:
                break
            batch_size *= 2
        torch.cuda.empty_cache()
        return batch_size

    @PlainTorch()
    @torch.inference_mode()
    def encode_text(self, captions: Sequence[str]) -> Embeddings:
        """Embed captions: float32 (N, D), each row of length 1.

        Raises:
            CheckpointError: lite0 whose text tower was not trained yet.
        """
        if self.tokenize is None:
            raise CheckpointError(f"{self.name}: no text tower; train it first (stage clip), then load it from its directory")
        batches = [captions[start:start + TEXT_BATCH] for start in range(0, len(captions), TEXT_BATCH)]
        return torch.cat([embed_captions(self, batch) for batch in batches]).cpu().numpy()

    def score(self, images: Sequence[Pixels], captions: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of each image with its caption: float32 (N,), higher fits better."""
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} images with {len(captions)} captions")
        similar = self.center(self.embed_images(images)) * self.encode_text(captions)
        return np.asarray(similar.sum(axis=1, dtype=np.float64), dtype=np.float32)

    def compare(self, images: Sequence[Pixels], captions: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of each image with each caption: float32 (N, M), higher fits better."""
        return np.asarray(self.center(self.embed_images(images)).astype(np.float64) @ self.encode_text(captions).T.astype(np.float64),
                          dtype=np.float32)

    def center(self, embeddings: Embeddings) -> Embeddings:
        """Image embeddings as they are compared with text: float32 (N, M), each row of length 1."""
        if self.image_mean is None:
            return embeddings
        return normalise(normalise(embeddings[:, :len(self.image_mean)]) - self.image_mean.numpy())


def normalise(rows: Embeddings) -> Embeddings:
    """Scale rows to length 1: float32 (N, D)."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)


@PlainTorch()
def load_clip(config: ClipConfig, *, text_dir: Path | None = None, device: str = "cpu") -> Clip:
    """Load the CLIP of a recipe.

    Args:
        config: the model's name; without a batch size it is 16 on a CPU, and what fits on a GPU.
        text_dir: lite0 only: the finished stage `clip` with the trained text tower; None: images only.
        device: where the model shall lie.

    Raises:
        RecipeError: a name that open_clip does not know, or weights that cannot be had.
    """
    clip = load_lite0(config, text_dir, device) if config.model == "lite0" else load_open_clip(config, device)
    if config.batch_size is not None:
        clip.batch_size = config.batch_size
    elif clip.device.type == "cuda":
        clip.batch_size = clip.find_batch_size()
    return clip


def load_lite0(config: ClipConfig, text_dir: Path | None, device: str) -> Clip:
    """The built-in CLIP; see `lite0`."""
    if config.pretrained is not None:
        raise RecipeError(f"clip.pretrained: lite0 brings its own weights (got {config.pretrained!r}); remove the key")
    text_config = lite0.TEXT_CONFIG if text_dir is None else lite0.read_text_config(text_dir)
    model = lite0.build_model(text_config).to(device)
    if text_dir is None:
        return Clip("lite0", model, lite0.IMAGE_SIZE, lite0.PIXEL_MEAN, lite0.PIXEL_STD, None)
    tokenizer, mean = lite0.load_text_tower(model, text_dir)

    def tokenize(captions: list[str]) -> Tensor:
        return lite0.encode_captions(tokenizer, captions, text_config["context_length"])

    def find_cut(captions: list[str]) -> list[bool]:
        return lite0.find_cut(tokenizer, captions, text_config["context_length"])

    return Clip("lite0", model, lite0.IMAGE_SIZE, lite0.PIXEL_MEAN, lite0.PIXEL_STD, tokenize, mean, find_cut=find_cut)


def load_open_clip(config: ClipConfig, device: str) -> Clip:
    """Any model of open_clip: by name and pretrained tag, `hf-hub:<repository>` or `local-dir:<path>`."""
    import open_clip

    if ":" not in config.model and config.pretrained is None:
        raise RecipeError(f"clip.pretrained: {config.model} needs a pretrained tag or a weight file; without one its weights would be random")
    try:
        model, _, _ = open_clip.create_model_and_transforms(config.model, pretrained=config.pretrained, device=device)
        tokenizer = open_clip.get_tokenizer(config.model)
    except Exception as error:  # open_clip, the Hub client and torch each raise their own types
        raise RecipeError(f"clip.model: {config.model} (pretrained: {config.pretrained}) cannot be loaded by open_clip: "
                          f"{one_line(error, 300)}") from error
    return Clip.of(model, tokenizer, name=config.model)


def find_longer(tokenizer: Any, captions: list[str]) -> list[bool]:
    """Which captions a tokenizer of open_clip cuts: given one place more it puts another token where the cut one ends, or fills the place."""
    if not captions:
        return []
    short = torch.as_tensor(tokenizer(captions))
    context = short.shape[1]
    longer, padding = (torch.as_tensor(tokenizer(texts, context_length=context + 1)) for texts in (captions, ["a"]))
    return [bool(cut) for cut in (longer[:, :context] != short).any(dim=1) | (longer[:, context] != padding[0, context])]


def time_embedding(config: ClipConfig) -> float:
    """Seconds that a square image takes to embed on this machine, from two batches of a blank one; the first makes the kernels."""
    clip = load_clip(config)
    images = [np.full((clip.image_size, clip.image_size, 3), 255, dtype=np.uint8)] * clip.batch_size
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        clip.embed_images(images)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / len(images)
