"""What of a release will be loaded, known before its weights are: to refuse in time what does not fit it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...recipe.strict_model import StrictModel
from ..drawing.options import check_lengths
from ..networks.noised_clip import NoisedClipConfig
from ..networks.unet import UNetConfig
from ..tokenizer import CaptionTokenizer


@dataclass(frozen=True)
class Architecture:
    """The configuration of each network that will be loaded, and the tokenizers, both by name."""

    configs: Mapping[str, StrictModel]
    tokenizers: Mapping[str, CaptionTokenizer]

    def check_lengths(self, prompts: Sequence[str]) -> None:
        """Refuse prompts that one of the networks cannot read to their end.

        Raises:
            RequestError: naming the prompt, its length and the limit.
        """
        for config in self.configs.values():
            if isinstance(config, UNetConfig):
                check_lengths(prompts, self.tokenizers["tokenizer"], config.text_ctx)
            elif isinstance(config, NoisedClipConfig):
                check_lengths(prompts, self.tokenizers.get("clip_tokenizer", self.tokenizers["tokenizer"]), config.max_text_len - 2)
