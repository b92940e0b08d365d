"""Named architectures. The published ones carry the exact shapes of the released checkpoints (arXiv 2112.10741)."""

from ...errors import RecipeError
from .noised_clip import NoisedClipConfig
from .unet import UNetConfig

GPT2_VOCAB = 50_257
CLIP_VOCAB = 65_536

_GLIDE_BASE = UNetConfig(image_size=64, model_channels=192, channel_mult=(1, 2, 3, 4), num_res_blocks=3,
                         attention_downsample=(2, 4, 8), num_head_channels=64, text_ctx=128, xf_width=512, xf_layers=16, xf_heads=8,
                         n_vocab=GPT2_VOCAB)
_GLIDE_UPSAMPLER = UNetConfig(image_size=256, model_channels=192, channel_mult=(1, 1, 2, 2, 4, 4), num_res_blocks=2,
                              attention_downsample=(8, 16, 32), num_head_channels=64, text_ctx=128, xf_width=512, xf_layers=16,
                              xf_heads=8, n_vocab=GPT2_VOCAB, super_res=True)
# 64 channels in 32 groups: with one channel a group, normalisation hides each image's colours from the network, and a
# short training then draws every picture in a tint of its own.
_TINY_24 = UNetConfig(image_size=24, model_channels=64, channel_mult=(1, 2, 2), num_res_blocks=1, attention_downsample=(2, 4),
                      num_head_channels=32, text_ctx=24, xf_width=192, xf_layers=3, xf_heads=4, n_vocab=2048, dropout=0.0)
_MICRO_16 = UNetConfig(image_size=16, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_downsample=(2,),
                       num_head_channels=32, text_ctx=16, xf_width=64, xf_layers=1, xf_heads=2, n_vocab=512, dropout=0.0)

# What an upsampler adds to the enlarged picture lies close by, so that attention is left to the smallest sizes and one channel a group does.
_UPSAMPLER_TINY_96 = UNetConfig(image_size=96, model_channels=32, channel_mult=(1, 1, 2, 4), num_res_blocks=1, attention_downsample=(8,),
                                num_head_channels=32, text_ctx=24, xf_width=64, xf_layers=1, xf_heads=2, n_vocab=2048, dropout=0.0,
                                super_res=True, low_res_residual=True)

UNET_PRESETS = {
    "glide-base-64": _GLIDE_BASE,
    "glide-base-64-inpaint": _GLIDE_BASE.model_copy(update={"inpaint": True}),
    "glide-upsampler-256": _GLIDE_UPSAMPLER,
    "glide-upsampler-256-inpaint": _GLIDE_UPSAMPLER.model_copy(update={"inpaint": True}),
    "glide-small-64": UNetConfig(image_size=64, model_channels=64, channel_mult=(1, 2, 3, 4), num_res_blocks=2, attention_downsample=(4, 8),
                                 num_head_channels=64, text_ctx=48, xf_width=256, xf_layers=6, xf_heads=4, n_vocab=8192),
    "glide-tiny-24": _TINY_24,
    "glide-micro-16": _MICRO_16,
    "glide-upsampler-tiny-96": _UPSAMPLER_TINY_96,
    "glide-upsampler-micro-32": _MICRO_16.model_copy(update={"image_size": 32, "super_res": True, "low_res_residual": True}),
}
NOISED_CLIP_PRESETS = {
    "noised-clip-vit-b": NoisedClipConfig(image_size=64, patch_size=4, n_embd=512, n_head_image=12, n_head_state_image=64,
                                          n_xf_blocks_image=12, n_vocab=CLIP_VOCAB, max_text_len=77, n_head_text=8,
                                          n_head_state_text=64, n_xf_blocks_text=12),
    "noised-clip-small-64": NoisedClipConfig(image_size=64, patch_size=4, n_embd=256, n_head_image=6, n_head_state_image=64,
                                             n_xf_blocks_image=6, n_vocab=8192, max_text_len=50, n_head_text=4,
                                             n_head_state_text=64, n_xf_blocks_text=6, logit_scale=30.0),
    "noised-clip-tiny-24": NoisedClipConfig(image_size=24, patch_size=4, n_embd=128, n_head_image=4, n_head_state_image=32,
                                            n_xf_blocks_image=4, n_vocab=2048, max_text_len=26, n_head_text=4,
                                            n_head_state_text=32, n_xf_blocks_text=3, logit_scale=20.0),
    "noised-clip-micro-16": NoisedClipConfig(image_size=16, patch_size=4, n_embd=32, n_head_image=2, n_head_state_image=16,
                                             n_xf_blocks_image=1, n_vocab=512, max_text_len=18, n_head_text=2,
                                             n_head_state_text=16, n_xf_blocks_text=1, logit_scale=20.0),
}


def unet_preset(name: str, *, key: str = "base.preset") -> UNetConfig:
    """The U-Net architecture of that name.

    Args:
        name: of the preset.
        key: the key of the recipe that gives the name.

    Raises:
        RecipeError: no such preset.
    """
    if name not in UNET_PRESETS:
        raise RecipeError(f"{key}: {name!r} is unknown; choose one of {', '.join(UNET_PRESETS)}")
    return UNET_PRESETS[name]


def noised_clip_preset(name: str) -> NoisedClipConfig:
    """The noised CLIP architecture of that name.

    Raises:
        RecipeError: no such preset.
    """
    if name not in NOISED_CLIP_PRESETS:
        raise RecipeError(f"noised_clip.preset: {name!r} is unknown; choose one of {', '.join(NOISED_CLIP_PRESETS)}")
    return NOISED_CLIP_PRESETS[name]
