"""Smaller copies of weights: each is the exact cast of the full ones, which anyone can compute again.

The cast is IEEE 754's round to nearest, ties to even, as `torch.Tensor.to` does it; it has one result on every machine.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from ...store.weight_files import TensorHeader, WeightFiles
from ..evidence.contents import Release
from . import Piece, is_finite, read_pieces

DTYPES: Mapping[str, str] = MappingProxyType({"fp16": "F16", "bf16": "BF16"})
TORCH_NAMES: Mapping[str, str] = MappingProxyType({"F32": "float32", "F16": "float16", "BF16": "bfloat16"})
LARGEST_FP16 = 65504


def cast_headers(headers: Mapping[str, TensorHeader], variant: str | None) -> dict[str, TensorHeader]:
    """Types and shapes after the cast; where the values lie is left open (0, 0)."""
    return {name: TensorHeader(header.dtype if variant is None else DTYPES[variant], header.shape, 0, 0) for name, header in headers.items()}


def cast_piece(piece: Piece, variant: str | None) -> Piece:
    """Cast values.

    Args:
        piece: finite values of a full tensor.
        variant: `fp16` or `bf16`; none leaves them as they are.

    Returns:
        The same values in the other type; in fp16 those beyond 65504 become infinite.
    """
    if variant is None or DTYPES[variant] == piece.dtype:
        return piece
    import torch

    values = torch.frombuffer(bytearray(piece.data), dtype=getattr(torch, TORCH_NAMES[piece.dtype]))
    cast = values.to(getattr(torch, TORCH_NAMES[DTYPES[variant]]))
    return Piece(piece.name, DTYPES[variant], piece.start, cast.view(torch.int16).numpy().tobytes())


def describe_overflow(component: str, piece: Piece, variant: str) -> str:
    """What to do when a finite value is none after the cast."""
    return (f"{component}: tensor {piece.name} holds values beyond {LARGEST_FP16}, which {variant} cannot hold; remove {variant!r} from "
            "release.variants (bf16 has the range of float32), or train with a smaller learning rate or some weight decay")


def check_variants(release: Release) -> list[str]:
    """Each variant of each component is the cast of the full weights, value for value; the first that differs of a tensor is named."""
    problems = []
    for component in release.networks:
        for variant in release.recipe.release.variants:
            problems += compare_cast(release.weights(component), release.weights(component, variant), component, variant)
    return problems


def compare_cast(full: WeightFiles, cast: WeightFiles, component: str, variant: str) -> list[str]:
    """Compare a variant with the full weights, a piece at a time; see `check_variants`."""
    where, expected = f"{component} {variant}", cast_headers(full.headers, variant)
    problems = [f"{where}: tensor {name} is missing" for name in sorted(expected.keys() - cast.headers.keys())]
    problems += [f"{where}: tensor {name} is not in the full weights" for name in sorted(cast.headers.keys() - expected.keys())]
    shared = sorted(expected.keys() & cast.headers.keys())
    same = [name for name in shared if (cast.headers[name].dtype, cast.headers[name].shape) == (expected[name].dtype, expected[name].shape)]
    problems += [f"{where}: tensor {name} is {cast.headers[name].dtype} {list(cast.headers[name].shape)}, the cast is {expected[name].dtype} "
                 f"{list(expected[name].shape)}" for name in shared if name not in same]
    wrong: dict[str, str] = {}
    for piece, theirs in zip(read_pieces(full, same), read_pieces(cast, same), strict=True):
        ours = cast_piece(piece, variant)
        if ours.data != theirs.data and ours.name not in wrong:
            differ = np.frombuffer(ours.data, "<u2") != np.frombuffer(theirs.data, "<u2")
            wrong[ours.name] = (f"{where}: tensor {ours.name} is not the cast of the full one (first at value "
                                f"{ours.start + int(differ.argmax())}); pack the release again")
        elif not is_finite(ours):
            wrong[ours.name] = describe_overflow(component, ours, variant)
    return problems + list(wrong.values())
