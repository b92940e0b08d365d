"""The noised CLIP of GLIDE (arXiv 2112.10741, section 4.2): both encoders, the image side told the noise level.

Parameter names and shapes are those of the published checkpoints; there the two encoders are two files, here they are
two modules of one, `image_encoder` and `text_encoder`.
"""

from collections.abc import Callable
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ...recipe.strict_model import StrictModel

# Pixel statistics of CLIP's training data (arXiv 2103.00020), for pixels in 0..255; the published encoders use the same.
CHANNEL_MEANS = tuple(255 * mean for mean in (0.48145466, 0.4578275, 0.40821073))
CHANNEL_STDS = tuple(255 * std for std in (0.26862954, 0.26130258, 0.27577711))
MAX_PATCHES_SIDE = 128  # attention takes time with the fourth power, with weights of any size


class NoisedClipConfig(StrictModel):
    """Architecture of a noised CLIP; the bounds keep a hostile configuration from allocating a machine's memory."""

    image_size: Annotated[int, Field(ge=4, le=1024)] = Field(description="side of the images in pixels")
    patch_size: Annotated[int, Field(ge=1, le=64)] = Field(description="side of a patch in pixels")
    n_embd: Annotated[int, Field(ge=8, le=4096)] = Field(description="size of the common embedding")
    n_head_image: Annotated[int, Field(ge=1, le=64)] = Field(description="heads of the image encoder")
    n_head_state_image: Annotated[int, Field(ge=8, le=256)] = Field(description="channels per head of the image encoder")
    n_xf_blocks_image: Annotated[int, Field(ge=1, le=64)] = Field(description="blocks of the image encoder")
    n_vocab: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="tokens of the vocabulary")
    max_text_len: Annotated[int, Field(ge=2, le=1024)] = Field(description="longest caption in tokens, start and end included")
    n_head_text: Annotated[int, Field(ge=1, le=64)] = Field(description="heads of the text encoder")
    n_head_state_text: Annotated[int, Field(ge=8, le=256)] = Field(description="channels per head of the text encoder")
    n_xf_blocks_text: Annotated[int, Field(ge=1, le=64)] = Field(description="blocks of the text encoder")
    n_timesteps: Annotated[int, Field(ge=1, le=10_000)] = Field(1000, description="noise levels that have an embedding")
    logit_scale: Annotated[float, Field(gt=0, le=1000)] = Field(100.0, description="factor on cosines before the softmax")

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if (side := self.image_size // self.patch_size) > MAX_PATCHES_SIDE:
            raise ValueError(f"{side} x {side} patches, at most {MAX_PATCHES_SIDE} x {MAX_PATCHES_SIDE} are compared with one another")
        return self


class GainBiasNorm(nn.Module):
    """Layer normalisation in float32 with the published names `g` and `b`."""

    def __init__(self, width: int) -> None:
        """Normalise over `width` channels."""
        super().__init__()
        self.g = nn.Parameter(torch.ones(width))
        self.b = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (..., width)."""
        return functional.layer_norm(x.float(), self.g.shape, self.g.float(), self.b.float(), 1e-5).to(x.dtype)


class Affine(nn.Module):
    """A linear layer with the published names `w` and `b`."""

    def __init__(self, width_in: int, width_out: int, *, std: float, bias: bool = True) -> None:
        """Weights are normal with the given deviation, biases zero."""
        super().__init__()
        self.w = nn.Parameter(torch.randn(width_out, width_in) * std)
        self.b = nn.Parameter(torch.zeros(width_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (..., width_in)."""
        return functional.linear(x, self.w, self.b)


class ClipAttention(nn.Module):
    """Pre-norm self-attention; keys have no bias."""

    def __init__(self, num_heads: int, head_state: int, num_blocks: int, *, causal: bool) -> None:
        """`causal` lets a position see only itself and what came before."""
        super().__init__()
        width = num_heads * head_state
        self.num_heads, self.causal = num_heads, causal
        self.ln = GainBiasNorm(width)
        self.f_q = Affine(width, width, std=width**-0.5)
        self.f_k = Affine(width, width, std=width**-0.5, bias=False)
        self.f_v = Affine(width, width, std=width**-0.5)
        self.f_c = Affine(width, width, std=(2 * num_blocks * width) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Attend. x: (N, L, width) -> (N, L, width)."""
        n, length, width = x.shape
        h = self.ln(x)
        q, k, v = (f(h).view(n, length, self.num_heads, -1).transpose(1, 2) for f in (self.f_q, self.f_k, self.f_v))
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return torch.as_tensor(self.f_c(out.transpose(1, 2).reshape(n, length, width)))


class ClipMlp(nn.Module):
    """Pre-norm feed-forward half with exact GELU."""

    def __init__(self, width: int, num_blocks: int) -> None:
        """Four times as wide inside."""
        super().__init__()
        self.ln = GainBiasNorm(width)
        self.f_1 = Affine(width, 4 * width, std=(2 / width) ** 0.5 / 2)
        self.f_2 = Affine(4 * width, width, std=(2 * num_blocks * 4 * width) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (..., width)."""
        h = self.f_1(self.ln(x))
        return torch.as_tensor(self.f_2(functional.gelu(h)))


class ClipBlock(nn.Module):
    """Attention, then MLP, each added to its input."""

    def __init__(self, num_heads: int, head_state: int, num_blocks: int, *, causal: bool) -> None:
        """Make both halves."""
        super().__init__()
        self.f_attn = ClipAttention(num_heads, head_state, num_blocks, causal=causal)
        self.f_mlp = ClipMlp(num_heads * head_state, num_blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (N, L, width)."""
        x = x + self.f_attn(x)
        return torch.as_tensor(x + self.f_mlp(x))


class ImageInput(nn.Module):
    """Patches to tokens, behind one token that tells the noise level."""

    def __init__(self, config: NoisedClipConfig) -> None:
        """Make embeddings for patches, positions and timesteps."""
        super().__init__()
        width = config.n_head_image * config.n_head_state_image
        num_patches = (config.image_size // config.patch_size) ** 2
        self.patch_size = config.patch_size
        self.w_t = nn.Parameter(torch.randn(config.n_timesteps, width) * 0.02)
        self.patch_proj = nn.Parameter(torch.randn(width, 3, config.patch_size, config.patch_size) * (3 * config.patch_size**2) ** -0.5)
        self.w_pos = nn.Parameter(torch.randn(num_patches + 1, width) * 0.02)
        self.ln = GainBiasNorm(width)

    def forward(self, pixels: Tensor, timesteps: Tensor) -> Tensor:
        """Embed pixels: (N, 3, H, W) in 0..255 plus noise, at timesteps: int64 (N,), as (N, 1 + patches, width)."""
        means = torch.tensor(CHANNEL_MEANS, device=pixels.device, dtype=pixels.dtype).view(1, 3, 1, 1)
        stds = torch.tensor(CHANNEL_STDS, device=pixels.device, dtype=pixels.dtype).view(1, 3, 1, 1)
        pixels = ((pixels - means) / stds).to(self.patch_proj.dtype)
        patches = functional.conv2d(pixels, self.patch_proj, stride=self.patch_size).flatten(2).transpose(1, 2)
        levels = functional.embedding(timesteps, self.w_t)  # an index's gradient is summed in any order by several threads
        return torch.as_tensor(self.ln(torch.cat([levels[:, None].to(patches.dtype), patches], dim=1) + self.w_pos))


class TextInput(nn.Module):
    """Tokens to embeddings with positions."""

    def __init__(self, config: NoisedClipConfig) -> None:
        """Make both tables."""
        super().__init__()
        width = config.n_head_text * config.n_head_state_text
        self.w_voc = nn.Parameter(torch.randn(config.n_vocab, width) * 0.02)
        self.w_pos = nn.Parameter(torch.randn(config.max_text_len, width) * 0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed tokens: int64 (N, L) as (N, L, width)."""
        return functional.embedding(tokens, self.w_voc) + self.w_pos[: tokens.shape[1]]


class Output(nn.Module):
    """Norm and projection into the common embedding."""

    def __init__(self, width: int, n_embd: int) -> None:
        """Project `width` channels to `n_embd`."""
        super().__init__()
        self.ln = GainBiasNorm(width)
        self.f = Affine(width, n_embd, std=width**-0.5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (N, width) -> (N, n_embd)."""
        return torch.as_tensor(self.f(self.ln(x)))


class ImageEncoder(nn.Module):
    """ViT that reads the noise level with its first token."""

    def __init__(self, config: NoisedClipConfig) -> None:
        """Build with fresh weights."""
        super().__init__()
        width = config.n_head_image * config.n_head_state_image
        blocks: dict[str, nn.Module] = {"input": ImageInput(config)}
        for i in range(config.n_xf_blocks_image):
            blocks[f"block_{i}"] = ClipBlock(config.n_head_image, config.n_head_state_image, config.n_xf_blocks_image, causal=False)
        self.blocks = nn.ModuleDict(blocks | {"output": Output(width, config.n_embd)})
        self.num_blocks = config.n_xf_blocks_image

    def forward(self, pixels: Tensor, timesteps: Tensor) -> Tensor:
        """Encode pixels: (N, 3, H, W) in 0..255 plus noise, at timesteps: int64 (N,), as (N, n_embd), not normalised."""
        x = self.blocks["input"](pixels, timesteps)
        for i in range(self.num_blocks):
            x = self.blocks[f"block_{i}"](x)
        return torch.as_tensor(self.blocks["output"](x[:, 0]))


class TextEncoder(nn.Module):
    """Causal transformer; the last token's state is the caption's."""

    def __init__(self, config: NoisedClipConfig) -> None:
        """Build with fresh weights."""
        super().__init__()
        width = config.n_head_text * config.n_head_state_text
        blocks: dict[str, nn.Module] = {"input": TextInput(config)}
        for i in range(config.n_xf_blocks_text):
            blocks[f"block_{i}"] = ClipBlock(config.n_head_text, config.n_head_state_text, config.n_xf_blocks_text, causal=True)
        self.blocks = nn.ModuleDict(blocks | {"output": Output(width, config.n_embd)})
        self.num_blocks = config.n_xf_blocks_text

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Encode tokens: int64 (N, L) with lengths: int64 (N,) as (N, n_embd), not normalised."""
        x = self.blocks["input"](tokens)
        for i in range(self.num_blocks):
            x = self.blocks[f"block_{i}"](x)
        return torch.as_tensor(self.blocks["output"](x[torch.arange(len(x), device=x.device), lengths - 1]))


class NoisedClip(nn.Module):
    """Both encoders; scores noised images against captions."""

    def __init__(self, config: NoisedClipConfig) -> None:
        """Build with fresh weights."""
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.text_encoder = TextEncoder(config)

    def encode_image(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Unit embeddings (N, n_embd) of x: (N, 3, H, W) in [-1, 1] plus noise, at timesteps: int64 (N,)."""
        return functional.normalize(self.image_encoder((x + 1) * 127.5, timesteps).float(), dim=-1)

    def encode_text(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Unit embeddings (N, n_embd) of tokens: int64 (N, L) with lengths: int64 (N,)."""
        return functional.normalize(self.text_encoder(tokens, lengths).float(), dim=-1)

    def forward(self, x: Tensor, timesteps: Tensor, tokens: Tensor, lengths: Tensor, *,
                gather: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Scaled cosines (images N, captions M) before the softmax; `gather` puts the embeddings of several processes together."""
        images, texts = self.encode_image(x, timesteps), self.encode_text(tokens, lengths)
        if gather is not None:
            images, texts = gather(images), gather(texts)
        return self.config.logit_scale * images @ texts.T
