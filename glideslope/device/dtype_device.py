"""Which type weights take, and on which device: asked for by name, refused before anything is fetched or read."""

import torch

from ..errors import RequestError
from ..text.one_line import one_line

DTYPES_BY_NAME = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A type of weights from itself or its name; none keeps what is stored.

    Raises:
        RequestError: none of `float32`, `float16` and `bfloat16`.
    """
    found = DTYPES_BY_NAME.get(dtype) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in DTYPES_BY_NAME.values():
        raise RequestError(f"dtype is {dtype!r:.80}; expected one of {', '.join(DTYPES_BY_NAME)}, or none to keep what is stored")
    return found


def choose_device(device: str | torch.device | None) -> torch.device:
    """A device that works here; none takes a GPU where there is one.

    Raises:
        RequestError: no such device, or one without its driver.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).cpu()  # a device without its driver, and one that holds no numbers, show it here
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:  # torch raises each of them, by the device
        raise RequestError(f"device is {str(device)!r:.80}, which cannot be used here ({one_line(error, 160)}); take cpu, or "
                           "cuda where there is a GPU with its driver, or leave it out") from error
    return place
