"""GLIDE's U-Net with its text transformer (arXiv 2112.10741, section 4; the U-Net is ADM's, arXiv 2105.05233).

Parameter names, shapes and order are those of the published checkpoints, so that they load as they are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ...recipe.strict_model import StrictModel
from .text_transformer import TextTransformer

NUM_GROUPS = 32
MAX_ATTENTION_SIDE = 128  # time grows with the fourth power: from this on one step takes minutes, with weights of any size
ROW_MULTIPLE = 16
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class UNetConfig(StrictModel):
    """Architecture of a GLIDE U-Net; the bounds keep a hostile configuration from allocating a machine's memory."""

    image_size: Annotated[int, Field(ge=8, le=1024)] = Field(description="side of the images in pixels")
    model_channels: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = Field(
        description="channels at the highest resolution, before `channel_mult`")
    channel_mult: Annotated[tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(min_length=1, max_length=8, strict=False)] = Field(
        description="channels of each resolution level, as multiples of `model_channels`")
    num_res_blocks: Annotated[int, Field(ge=1, le=16)] = Field(description="residual blocks per level on the way down; one more on the way up")
    attention_downsample: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=8, strict=False)] = Field(
        description="downsampling factors at which attention follows each residual block")
    num_head_channels: Annotated[int, Field(ge=8, le=1024)] = Field(description="channels per attention head")
    text_ctx: Annotated[int, Field(ge=1, le=1024)] = Field(description="tokens per caption")
    xf_width: Annotated[int, Field(ge=8, le=4096)] = Field(description="width of the text transformer")
    xf_layers: Annotated[int, Field(ge=0, le=64)] = Field(description="blocks of the text transformer")
    xf_heads: Annotated[int, Field(ge=1, le=64)] = Field(description="heads of the text transformer")
    n_vocab: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="tokens of the vocabulary")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="dropout inside residual blocks, while training")
    super_res: bool = Field(False, description="the input also holds the low-resolution image, upsampled")
    inpaint: bool = Field(False, description="the input also holds the known pixels and their mask")
    low_res_residual: bool = Field(False, description="what is predicted is added to the low-resolution image, upsampled")

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.image_size % 2 ** (len(self.channel_mult) - 1):
            raise ValueError(f"image_size {self.image_size} cannot be halved {len(self.channel_mult) - 1} times, once for each level but one")
        if self.xf_width % self.xf_heads:
            raise ValueError(f"xf_width {self.xf_width} is not a multiple of xf_heads {self.xf_heads}")
        if self.low_res_residual and not self.super_res:
            raise ValueError("low_res_residual is true, but super_res is not: there is no low-resolution image to add to")
        attending = [mult * self.model_channels for level, mult in enumerate(self.channel_mult)
                     if 2**level in self.attention_downsample or level + 1 == len(self.channel_mult)]
        if any(channels % self.num_head_channels for channels in attending):
            raise ValueError(f"num_head_channels {self.num_head_channels} does not divide {attending}, the channels where attention is")
        sides = [self.image_size // 2**level for level in range(len(self.channel_mult))
                 if 2**level in self.attention_downsample or level + 1 == len(self.channel_mult)]
        if max(sides) > MAX_ATTENTION_SIDE:
            raise ValueError(f"attention over {max(sides)} x {max(sides)} places, at most {MAX_ATTENTION_SIDE} x {MAX_ATTENTION_SIDE} are "
                             "compared with one another; attend further down, or halve more often")
        return self

    @property
    def in_channels(self) -> int:
        """Channels that enter the first convolution."""
        return 3 + 3 * self.super_res + 4 * self.inpaint


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of diffusion times, cosines first.

    Args:
        timesteps: (N,), integer or float; may lie between steps.
        dim: size of the embedding, even.
        max_period: the longest period, in steps.

    Returns:
        float32 (N, dim).
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half)
    angles = timesteps[:, None].float() * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@dataclass(frozen=True)
class PromptContext:
    """What a U-Net needs of its captions, computed once and used at every step.

    Attributes:
        projected: (N, 4 model_channels), added to the time embedding.
        keys, values: for each attention block in the order of the network, (N, heads, text_ctx, channels per head).
    """

    projected: Tensor
    keys: Sequence[Tensor]
    values: Sequence[Tensor]

    def __getitem__(self, images: slice) -> "PromptContext":
        """The context of some of the captions."""
        return PromptContext(self.projected[images], [k[images] for k in self.keys], [v[images] for v in self.values])

    @classmethod
    def concatenate(cls, parts: Sequence["PromptContext"]) -> "PromptContext":
        """One context of several, in their order."""
        return cls(torch.cat([part.projected for part in parts]), [torch.cat(k) for k in zip(*(part.keys for part in parts), strict=True)],
                   [torch.cat(v) for v in zip(*(part.values for part in parts), strict=True)])


def fill_rows(x: Tensor) -> Tensor:
    """Add rows of zeros up to a multiple of 16.

    Products with few rows take other paths through the machine, which round otherwise; at the noisiest steps that grows
    to visible differences, and a seed would not give one picture in every batch.
    """
    missing = -len(x) % ROW_MULTIPLE
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


class GroupNorm32(nn.GroupNorm):
    """Group normalisation with 32 groups, whose sums are float32 whatever the input's dtype."""

    def __init__(self, channels: int) -> None:
        """Normalise `channels` channels."""
        super().__init__(NUM_GROUPS, channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (N, C, ...) -> the same shape and dtype."""
        return functional.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)


@dataclass(frozen=True)
class Conditions:
    """What steers the layers of a U-Net, computed once a pass.

    Attributes:
        embedding: (N or more, 4 model_channels), of time and caption; see `fill_rows`.
        context: of the captions.
    """

    embedding: Tensor
    context: PromptContext


class Stem(nn.Conv2d):
    """The first convolution, from the image and what is seen beside it to the network's channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        """Convolve 3 x 3 pixels."""
        super().__init__(in_channels, channels, 3, padding=1)

    def forward(self, x: Tensor, _: Conditions) -> Tensor:  # type: ignore[override]  # as every layer of a `Level`
        """Apply to x: (N, C, H, W)."""
        return super().forward(x)


def unchanged(x: Tensor) -> Tensor:
    """The same resolution: (N, C, H, W) as it is."""
    return x


def halved(x: Tensor) -> Tensor:
    """Half the resolution, by the mean of 2 x 2 pixels: (N, C, H, W) -> (N, C, H / 2, W / 2)."""
    return functional.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    """Double the resolution, each pixel repeated: (N, C, H, W) -> (N, C, 2 H, 2 W)."""
    return functional.interpolate(x, scale_factor=2, mode="nearest")


class ResBlock(nn.Module):
    """Residual block whose second norm is scaled and shifted by the embedding (arXiv 2105.05233, section 3).

    With norm_1, conv_1 in `in_layers` and norm_2, conv_2 in `out_layers`, and a change r of the resolution:

        h = conv_1(r(silu(norm_1(x))))
        y = skip(r(x)) + conv_2(dropout(silu((1 + scale) norm_2(h) + shift)))
    """

    def __init__(self, channels: int, emb_channels: int, dropout: float, *, out_channels: int,
                 resample: Callable[[Tensor], Tensor] = unchanged) -> None:
        """`resample` is one of `unchanged`, `halved` and `doubled`."""
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        self.out_layers = nn.Sequential(GroupNorm32(out_channels), nn.SiLU(), nn.Dropout(dropout),
                                        zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)))
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, conditions: Conditions) -> Tensor:
        """Apply to x: (N, C, H, W)."""
        # First half: the resolution changes between activation and convolution.
        norm, silu, conv = self.in_layers
        h: Tensor = conv(self.resample(silu(norm(x))))

        # Second half: the embedding scales and shifts what the norm gives.
        scale, shift = self.emb_layers(conditions.embedding)[:len(h)].to(h.dtype)[:, :, None, None].chunk(2, dim=1)
        norm, silu, dropout, conv = self.out_layers
        h = conv(dropout(silu(norm(h) * (1 + scale) + shift)))

        # Residual connection.
        y: Tensor = self.skip_connection(self.resample(x)) + h
        return y


class AttentionBlock(nn.Module):
    """Self-attention over pixels whose keys and values are extended by the text's (arXiv 2112.10741, section 4)."""

    def __init__(self, channels: int, num_head_channels: int, encoder_channels: int, *, number: int) -> None:
        """Attend with `channels / num_head_channels` heads to pixels and to `encoder_channels`-wide tokens.

        Args:
            channels: of the pixels.
            num_head_channels: channels per head.
            encoder_channels: of the tokens.
            number: of this block among the network's, whose keys and values it takes of a `PromptContext`.
        """
        super().__init__()
        self.num_heads = channels // num_head_channels
        self.number = number
        self.norm = GroupNorm32(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.encoder_kv = nn.Conv1d(encoder_channels, 2 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def text_keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the captions. text: (N, L, xf_width) -> two of (N, heads, L, channels per head)."""
        kv = pointwise(self.encoder_kv, text).view(*text.shape[:2], self.num_heads, 2, -1)
        return kv[..., 0, :].transpose(1, 2), kv[..., 1, :].transpose(1, 2)

    def forward(self, x: Tensor, conditions: Conditions) -> Tensor:
        """Apply to x: (N, C, H, W)."""
        # Queries, keys and values of the pixels: three of (N, heads, H W, channels per head).
        n, channels, height, width = x.shape
        pixels = self.norm(x).permute(0, 2, 3, 1).reshape(n, height * width, channels)
        q, k, v = pointwise(self.qkv, pixels).view(n, height * width, self.num_heads, 3, -1).permute(3, 0, 2, 1, 4)

        # Attention to the captions' tokens and to the pixels.
        k = torch.cat([conditions.context.keys[self.number], k], dim=2)
        v = torch.cat([conditions.context.values[self.number], v], dim=2)
        h = functional.scaled_dot_product_attention(q, k, v)

        # Projection and residual connection.
        h = pointwise(self.proj_out, h.transpose(1, 2).reshape(n, height * width, channels))
        return x + h.view(n, height, width, channels).permute(0, 3, 1, 2)


def pointwise(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of width 1 on (N, L, C), as one matrix product."""
    return functional.linear(x, layer.weight[:, :, 0], layer.bias)


class Level(nn.ModuleList):
    """Layers in a row, each a map of an image and the conditions to an image."""

    def forward(self, x: Tensor, conditions: Conditions) -> Tensor:
        """Apply every layer to x: (N, C, H, W)."""
        for layer in self:
            x = layer(x, conditions)
        return x


class TextConditionedUNet(nn.Module):
    """The denoiser of every GLIDE model: predicts noise, or the image without it, and the interpolation of the log-variance (6 channels).

    Attributes:
        config: the architecture.
        attention_blocks: in the order in which they are applied.
    """

    def __init__(self, config: UNetConfig) -> None:
        """Build the network of a configuration with fresh weights."""
        super().__init__()
        self.config = config
        self.attention_blocks: list[AttentionBlock] = []
        channels, last = config.channel_mult[0] * config.model_channels, len(config.channel_mult) - 1

        # Embeddings of caption and time.
        self.positional_embedding = nn.Parameter(torch.zeros(config.text_ctx, config.xf_width))
        self.padding_embedding = nn.Parameter(torch.zeros(config.text_ctx, config.xf_width))
        self.time_embed = nn.Sequential(nn.Linear(config.model_channels, self.emb_channels), nn.SiLU(),
                                        nn.Linear(self.emb_channels, self.emb_channels))

        # Way down: blocks at each resolution, then one that halves it.
        self.input_blocks = nn.ModuleList([Level([Stem(config.in_channels, channels)])])
        skip_channels = [channels]
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                layers = [self._res(channels, mult * config.model_channels), *self._attention(level, mult * config.model_channels)]
                channels = mult * config.model_channels
                self.input_blocks.append(Level(layers))
                skip_channels.append(channels)
            if level < last:
                self.input_blocks.append(Level([self._res(channels, channels, halved)]))
                skip_channels.append(channels)

        # Lowest resolution: attention between two blocks, whatever the configuration says.
        self.middle_block = Level([self._res(channels, channels), self._attend(channels), self._res(channels, channels)])

        # Way up: one block more at each resolution, each with a skip connection; the last one doubles the resolution.
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for i in range(config.num_res_blocks + 1):
                in_channels, channels = channels + skip_channels.pop(), config.channel_mult[level] * config.model_channels
                layers = [self._res(in_channels, channels), *self._attention(level, channels)]
                if level > 0 and i == config.num_res_blocks:
                    layers.append(self._res(channels, channels, doubled))
                self.output_blocks.append(Level(layers))

        # Output, and the text transformer.
        self.out = nn.Sequential(GroupNorm32(channels), nn.SiLU(), zeroed(nn.Conv2d(channels, 6, 3, padding=1)))
        self.transformer = TextTransformer(config.xf_width, config.xf_layers, config.xf_heads)
        self.final_ln = nn.LayerNorm(config.xf_width)
        self.token_embedding = nn.Embedding(config.n_vocab, config.xf_width)
        self.transformer_proj = nn.Linear(config.xf_width, self.emb_channels)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.padding_embedding, std=0.01)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    @property
    def emb_channels(self) -> int:
        """Channels of the embedding of time and caption."""
        return 4 * self.config.model_channels

    def _res(self, channels: int, out_channels: int, resample: Callable[[Tensor], Tensor] = unchanged) -> nn.Module:
        return ResBlock(channels, self.emb_channels, self.config.dropout, out_channels=out_channels, resample=resample)

    def _attention(self, level: int, channels: int) -> list[nn.Module]:
        """An attention block, at the resolutions that have one."""
        return [self._attend(channels)] if 2**level in self.config.attention_downsample else []

    def _attend(self, channels: int) -> nn.Module:
        block = AttentionBlock(channels, self.config.num_head_channels, self.config.xf_width, number=len(self.attention_blocks))
        self.attention_blocks.append(block)
        return block

    def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Predict from captions; see `denoise` and `encode_text`."""
        return self.denoise(x, timesteps, self.encode_text(tokens, mask))

    def encode_text(self, tokens: Tensor, mask: Tensor) -> PromptContext:
        """Run the text transformer and make each attention block's keys and values.

        Args:
            tokens: int64 (N, text_ctx).
            mask: bool (N, text_ctx), false where the caption has ended; the padding embedding stands there.
        """
        # Project: all tokens for attention, the last one for the embedding.
        x = self.read_text(tokens, mask)
        keys, values = zip(*(block.text_keys_values(x) for block in self.attention_blocks), strict=True)
        return PromptContext(self.transformer_proj(fill_rows(x[:, -1]))[:len(x)], keys, values)

    def read_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Run the text transformer: (N, text_ctx, xf_width); arguments are those of `encode_text`."""
        x = self.token_embedding(tokens) + self.positional_embedding[None]
        x = torch.where(mask[..., None], x, self.padding_embedding[None].to(x.dtype))
        read: Tensor = self.final_ln(self.transformer(x))
        return read

    def denoise(self, x: Tensor, timesteps: Tensor, context: PromptContext) -> Tensor:
        """Predict noise or image, and variance.

        Args:
            x: (N, 3, H, W) in [-1, 1] plus noise; for upsamplers and inpainting the condition's channels follow
                (see `condition_input`).
            timesteps: (N,) original diffusion times in [0, 1000).
            context: of N captions.

        Returns:
            (N, 6, H, W): noise or image, as the noise schedule says, then the variance's interpolation v in about [-1, 1]
            (arXiv 2102.09672, equation 15).
        """
        # Embed time and caption.
        times = timestep_embedding(fill_rows(timesteps), self.config.model_channels)
        embedding = self.time_embed(times.to(self.transformer_proj.weight.dtype))
        embedding = embedding + fill_rows(context.projected).to(embedding.dtype)
        conditions = Conditions(embedding, context)

        # Way down, where every block leaves a skip connection.
        h, skips = x, []
        for block in self.input_blocks:
            h = block(h, conditions)
            skips.append(h)

        # Lowest resolution.
        h = self.middle_block(h, conditions)

        # Way up, where every block takes the newest skip connection.
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), conditions)

        # Noise or image, and variance.
        output: Tensor = self.out(h)
        if self.config.low_res_residual:
            output = torch.cat([output[:, :3] + x[:, -3:], output[:, 3:]], dim=1)
        return output


def condition_input(x: Tensor, *, inpaint_image: Tensor | None = None, inpaint_mask: Tensor | None = None,
                    low_res: Tensor | None = None) -> Tensor:
    """Append what an inpainting or upsampling U-Net sees beside the noised image.

    Args:
        x: (N, 3, H, W), noised.
        inpaint_image: (N, 3, H, W) in [-1, 1], of which only the masked-in pixels are shown.
        inpaint_mask: (N, 1, H, W), 1 where pixels are known, 0 where they are to be drawn.
        low_res: (N, 3, h, w) in [-1, 1], enlarged bilinearly to (H, W).

    Returns:
        (N, 3 + 4 inpaint + 3 low_res, H, W).
    """
    parts = [x]
    if inpaint_image is not None and inpaint_mask is not None:
        parts += [inpaint_image * inpaint_mask, inpaint_mask]
    if low_res is not None:
        parts.append(functional.interpolate(low_res, x.shape[-2:], mode="bilinear", align_corners=False))
    return torch.cat(parts, dim=1)


def zeroed(module: ModuleT) -> ModuleT:
    """Set a layer's parameters to zero, so that its residual branch starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
