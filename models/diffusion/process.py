"""Gaussian diffusion: noise schedules, respacing, the forward process, and the training loss.

Sources: DDPM (arXiv 2006.11239), improved DDPM (arXiv 2102.09672: cosine schedule, learned variance, respacing),
min-SNR weighting (arXiv 2303.09556). All tables are float64: NumPy arrays, from which a process makes tensors once, on its device.
What is looked up takes the dtype of the images it meets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import RequestError
from ...recipe.training import NUM_TRAIN_STEPS

NUM_TRAIN_TIMESTEPS = NUM_TRAIN_STEPS
SCHEDULES = ("squaredcos_cap_v2", "linear")
PREDICTION_TYPES = ("epsilon", "sample")
CPU = torch.device("cpu")
VLB_WEIGHT = 1e-3  # arXiv 2102.09672, equation 16


@dataclass(frozen=True)
class NoiseSchedule:
    """What scheduler_config.json says of the networks that draw with it, in diffusers' words.

    Attributes:
        betas: name of the schedule, see `make_betas`.
        prediction_type: what a network's first three channels are: `epsilon`, the noise in the image (arXiv 2006.11239), or `sample`,
            the image without it (arXiv 2202.00512, section 4).
    """

    betas: str
    prediction_type: str = "epsilon"


def make_betas(schedule: str, num_timesteps: int = NUM_TRAIN_TIMESTEPS) -> NDArray[np.float64]:
    """Variances added at each step.

    Args:
        schedule: `linear` (arXiv 2006.11239, scaled to the number of steps) or `squaredcos_cap_v2`
            (arXiv 2102.09672, equation 17, capped at 0.999).
        num_timesteps: how many steps.

    Returns:
        float64 (num_timesteps,).

    Raises:
        RequestError: no such schedule.
    """
    if schedule == "linear":
        scale = 1000 / num_timesteps
        return np.linspace(scale * 1e-4, scale * 0.02, num_timesteps, dtype=np.float64)
    if schedule == "squaredcos_cap_v2":
        edges = np.cos((np.arange(num_timesteps + 1) / num_timesteps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas: NDArray[np.float64] = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
        return betas
    raise RequestError(f"noise schedule {schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}")


def space_timesteps(*counts: int, num_timesteps: int = NUM_TRAIN_TIMESTEPS) -> list[int]:
    """Choose which of the training's timesteps a shorter sampling run visits (arXiv 2102.09672, section 4).

    Args:
        counts: how many steps in all, spread evenly from first to last; or how many in each of several equal
            sections, the least noisy section first.
        num_timesteps: timesteps of the training.

    Returns:
        Timesteps in rising order.

    Raises:
        RequestError: fewer than one step, or more steps than timesteps.
    """
    size, extra = divmod(num_timesteps, len(counts))
    start, chosen = 0, []
    for section, count in enumerate(counts):
        length = size + (section < extra)
        if not 1 <= count <= length:
            raise RequestError(f"{count} steps do not fit into {length} timesteps; ask for 1 to {length}")
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):  # added up, not multiplied: the published models round this sum, and its last bit decides halves
            chosen.append(start + round(position))
            position += stride
        start += length
    return chosen


def strided_timesteps(num_steps: int, num_timesteps: int = NUM_TRAIN_TIMESTEPS) -> list[int]:
    """Timesteps a whole number apart, from 0, as DDIM chooses them (arXiv 2010.02502, section 4.2).

    Raises:
        RequestError: no whole stride gives exactly that many.
    """
    for stride in range(1, num_timesteps):
        if len(range(0, num_timesteps, stride)) == num_steps:
            return list(range(0, num_timesteps, stride))
    raise RequestError(f"no whole stride through {num_timesteps} timesteps visits exactly {num_steps}")


def fast27_timesteps() -> list[int]:
    """The published upsampler's 27 timesteps: few where noise is strong, the very last replaced by a calmer one."""
    return [*space_timesteps(10, 10, 3, 2, 2)[:-1], NUM_TRAIN_TIMESTEPS - 3]


@dataclass(frozen=True)
class DeviceTables:
    """What a process looks up for each image of a batch, on its device: float64 (T,) each.

    With a the signal power that is left at a step, a' that of the step before, and b the variance added between them:

    Attributes:
        signal: a.
        signal_before: a'.
        root_signal: sqrt(a), the factor of the image in a noised image.
        root_noise: sqrt(1 - a), the factor of the noise.
        inverse_root_signal: sqrt(1 / a).
        noise_over_signal: sqrt(1 / a - 1).
        log_beta: log(b), the larger bound of the log-variance.
        posterior_log_variance: the smaller bound.
        mean_of_start, mean_of_x: what x_0 and x_t weigh in the mean of q(x_{t-1} | x_t, x_0).
    """

    signal: Tensor
    signal_before: Tensor
    root_signal: Tensor
    root_noise: Tensor
    inverse_root_signal: Tensor
    noise_over_signal: Tensor
    log_beta: Tensor
    posterior_log_variance: Tensor
    mean_of_start: Tensor
    mean_of_x: Tensor


@dataclass(frozen=True)
class GaussianDiffusion:
    """The tables of one diffusion process, complete or respaced.

    Attributes:
        timesteps: (T,) the original timesteps visited, rising.
        betas: (T,) variances of the steps between visited timesteps.
        alphas_cumprod: (T,) signal power that is left at each.
        device: where the images and the steps of all methods lie.
    """

    timesteps: NDArray[np.int64]
    betas: NDArray[np.float64]
    alphas_cumprod: NDArray[np.float64]
    device: torch.device = CPU

    @classmethod
    def create(cls, schedule: str, timesteps: Sequence[int] | None = None, *, device: torch.device = CPU) -> "GaussianDiffusion":
        """Make the process of a schedule.

        Args:
            schedule: its name.
            timesteps: those that are visited, rising; None: all.
            device: of the images.

        Raises:
            RequestError: no such schedule.
        """
        full = np.cumprod(1 - make_betas(schedule))
        visited = np.arange(len(full)) if timesteps is None else np.array(timesteps)
        alphas_cumprod = np.asarray(full[visited], dtype=np.float64)
        betas = 1 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
        return cls(visited, betas, alphas_cumprod, device)

    @cached_property
    def tables(self) -> DeviceTables:
        """The tables as tensors, sent to the device once."""
        signal, (of_start, of_x) = self.alphas_cumprod, self.posterior_mean_coefficients
        arrays = (signal, self.alphas_cumprod_prev, np.sqrt(signal), np.sqrt(1 - signal), np.sqrt(1 / signal), np.sqrt(1 / signal - 1),
                  np.log(self.betas), self.posterior_log_variance, of_start, of_x)
        with torch.inference_mode(False):  # a table may be met by a gradient later
            return DeviceTables(*(torch.from_numpy(array).to(self.device) for array in arrays))

    @property
    def num_steps(self) -> int:
        """How many timesteps are visited."""
        return len(self.timesteps)

    @property
    def alphas_cumprod_prev(self) -> NDArray[np.float64]:
        """(T,) signal power one visited timestep earlier; 1 before the first."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @property
    def posterior_variance(self) -> NDArray[np.float64]:
        """(T,) variance of q(x_{t-1} | x_t, x_0) (arXiv 2006.11239, equation 7)."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @property
    def posterior_log_variance(self) -> NDArray[np.float64]:
        """(T,) its logarithm; the first, which would be minus infinity, takes the second's."""
        variance = self.posterior_variance
        variance = np.append(variance[1] if len(variance) > 1 else self.betas[0], variance[1:])
        return np.asarray(np.log(variance))

    @property
    def posterior_mean_coefficients(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(T,) each: what x_0 and x_t weigh in the mean of q(x_{t-1} | x_t, x_0) (arXiv 2006.11239, equation 7)."""
        before = self.alphas_cumprod_prev
        return (self.betas * np.sqrt(before) / (1 - self.alphas_cumprod),
                (1 - before) * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod))

    def add_noise(self, x_start: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """Sample q(x_t | x_0) (arXiv 2006.11239, equation 4).

        Args:
            x_start: (N, C, H, W) in [-1, 1].
            steps: int64 (N,), indices into the tables.
            noise: standard normal, shaped like `x_start`.
        """
        return gather(self.tables.root_signal, steps, x_start) * x_start + gather(self.tables.root_noise, steps, x_start) * noise

    def log_variance(self, variance_fraction: Tensor, steps: Tensor) -> Tensor:
        """Interpolate between the two extreme log-variances (arXiv 2102.09672, equation 15); fraction in [-1, 1]."""
        low = gather(self.tables.posterior_log_variance, steps, variance_fraction)
        high = gather(self.tables.log_beta, steps, variance_fraction)
        share = (variance_fraction + 1) / 2
        return share * high + (1 - share) * low

    def predict_start(self, x: Tensor, noise: Tensor, steps: Tensor, *, clip: bool = True) -> Tensor:
        """Solve x_t = sqrt(a) x_0 + sqrt(1 - a) noise for x_0, clipped to [-1, 1] if asked."""
        start = gather(self.tables.inverse_root_signal, steps, x) * x - gather(self.tables.noise_over_signal, steps, x) * noise
        return start.clamp(-1, 1) if clip else start

    def predict_noise(self, x: Tensor, x_start: Tensor, steps: Tensor) -> Tensor:
        """Solve the same equation for the noise."""
        return (gather(self.tables.inverse_root_signal, steps, x) * x - x_start) / gather(self.tables.noise_over_signal, steps, x)

    def posterior_mean(self, x_start: Tensor, x: Tensor, steps: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0) (arXiv 2006.11239, equation 7)."""
        return gather(self.tables.mean_of_start, steps, x) * x_start + gather(self.tables.mean_of_x, steps, x) * x

    def snr(self) -> NDArray[np.float64]:
        """(T,) signal-to-noise ratio of each timestep."""
        return self.alphas_cumprod / (1 - self.alphas_cumprod)


def gather(table: Tensor, steps: Tensor, like: Tensor) -> Tensor:
    """Look steps up in a table on their device, and shape them (N, 1, 1, 1): float64 where `like` is, else float32."""
    return table[steps].to(like.dtype if like.dtype == torch.float64 else torch.float32).view(-1, *[1] * (like.ndim - 1))


def weigh_errors(diffusion: GaussianDiffusion, prediction_type: str, *, min_snr_gamma: float | None = None) -> Tensor:
    """Factors of the squared error at each timestep.

    Of the noise: 1, DDPM's simple loss, or with gamma min(SNR, gamma) / SNR (arXiv 2303.09556). Of the image: max(SNR, 1), so that the
    error of the image counts fully where noise is strong (arXiv 2202.00512, section 4), but at most gamma.

    Args:
        diffusion: the complete process.
        prediction_type: whose error it is, see `NoiseSchedule`.
        min_snr_gamma: the most that little noise counts; None: no bound.

    Returns:
        float64 (T,), on the process's device.
    """
    snr = diffusion.snr()
    bounded = snr if min_snr_gamma is None else np.minimum(snr, min_snr_gamma)
    weights = np.maximum(bounded, 1) if prediction_type == "sample" else bounded / snr
    return torch.from_numpy(weights).to(diffusion.device)


def training_loss(diffusion: GaussianDiffusion, output: Tensor, *, x_start: Tensor, x: Tensor, noise: Tensor, steps: Tensor,
                  prediction_type: str = "epsilon", error_weights: Tensor | None = None) -> Tensor:
    """The loss of a model, per image.

    Of one that predicts the noise, the hybrid loss of learned variances (arXiv 2102.09672, equation 16): the squared error, plus the
    variational bound's term scaled by 0.001 whose gradient reaches the variance only. Of one that predicts the image, the squared error
    alone: where little noise is left an error of the image is many times the step's variance, and the bound's term would drown the
    rest. Its variance channels begin with zeros and stay so, halfway between the bounds.

    Args:
        diffusion: the complete process.
        output: (N, 6, H, W), what the network predicts, noise or image, and the variance fraction.
        x_start: (N, 3, H, W) in [-1, 1].
        x: (N, 3, H, W), noised.
        noise: (N, 3, H, W), the noise in it.
        steps: int64 (N,).
        prediction_type: see `NoiseSchedule`.
        error_weights: float64 (T,) factor of the squared error at each timestep, see `weigh_errors`; None: 1.

    Returns:
        (N,) losses.
    """
    predicted, fraction = output.float().chunk(2, dim=1)
    error = (predicted - (x_start if prediction_type == "sample" else noise)).square().mean(dim=(1, 2, 3))
    if error_weights is not None:
        error = error * gather(error_weights, steps, error)
    if prediction_type == "sample":
        return error
    log_variance = diffusion.log_variance(fraction, steps)
    start = diffusion.predict_start(x, predicted.detach(), steps)
    mean, true_mean = diffusion.posterior_mean(start, x, steps), diffusion.posterior_mean(x_start, x, steps)
    true_log_variance = gather(diffusion.tables.posterior_log_variance, steps, x)
    divergence = 0.5 * (log_variance - true_log_variance + torch.exp(true_log_variance - log_variance) - 1
                        + (true_mean - mean).square() * torch.exp(-log_variance))
    likelihood = -discretized_gaussian_log_likelihood(x_start, mean, log_variance)
    bound = torch.where((steps == 0).view(-1, 1, 1, 1), likelihood, divergence).mean(dim=(1, 2, 3)) / math.log(2)
    return error + VLB_WEIGHT * diffusion.num_steps * bound


def discretized_gaussian_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log-likelihood of 8-bit pixels under a Gaussian cut into 256 bins (arXiv 2006.11239, equation 13).

    Args:
        x: pixels in [-1, 1].
        mean: of the same shape.
        log_variance: of the same shape.

    Returns:
        Natural logarithms, the same shape.
    """
    precision = torch.exp(-0.5 * log_variance)
    above = torch.special.ndtr((x - mean + 1 / 255) * precision)
    below = torch.special.ndtr((x - mean - 1 / 255) * precision)
    inside = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return inside.clamp(min=1e-12).log()
