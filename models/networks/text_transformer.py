"""The text transformer inside GLIDE's U-Net (arXiv 2112.10741, section 4): bidirectional, pre-norm."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class TextAttention(nn.Module):
    """Multi-head self-attention over all positions; queries, keys and values of one head lie side by side."""

    def __init__(self, width: int, num_heads: int) -> None:
        """Make the projections for `num_heads` heads of `width / num_heads` channels."""
        super().__init__()
        self.num_heads = num_heads
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend. x: (N, L, width) -> (N, L, width)."""
        n, length, width = x.shape
        heads = self.c_qkv(x).view(n, length, self.num_heads, -1).transpose(1, 2)
        q, k, v = heads.chunk(3, dim=-1)
        out = functional.scaled_dot_product_attention(q, k, v)
        return torch.as_tensor(self.c_proj(out.transpose(1, 2).reshape(n, length, width)))


class TextMlp(nn.Module):
    """The feed-forward half of a block: four times as wide inside, exact GELU."""

    def __init__(self, width: int) -> None:
        """Make both layers."""
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (..., width) -> (..., width)."""
        return torch.as_tensor(self.c_proj(functional.gelu(self.c_fc(x))))


class TextBlock(nn.Module):
    """One pre-norm residual block."""

    def __init__(self, width: int, num_heads: int) -> None:
        """Make attention and MLP with their norms."""
        super().__init__()
        self.attn = TextAttention(width, num_heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = TextMlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (N, L, width) -> (N, L, width)."""
        x = x + self.attn(self.ln_1(x))
        return torch.as_tensor(x + self.mlp(self.ln_2(x)))


class TextTransformer(nn.Module):
    """A stack of blocks. Initialised as GLIDE's: normal weights scaled by width and depth."""

    def __init__(self, width: int, num_layers: int, num_heads: int) -> None:
        """Make `num_layers` blocks."""
        super().__init__()
        self.resblocks = nn.ModuleList(TextBlock(width, num_heads) for _ in range(num_layers))
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue
            depth_scale = (2 * num_layers) ** -0.5 if name.endswith("c_proj.weight") else 1.0
            nn.init.normal_(parameter, std=depth_scale * parameter.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to x: (N, L, width) -> (N, L, width)."""
        for block in self.resblocks:
            x = block(x)
        return x
