"""One training loop for all networks: resumable, deterministic, counted in images.

Everything random in a step follows from the recipe's seed and the step's number, and a training keeps the precision and the
number of threads that it began with. So a run that was killed and goes on from a checkpoint on the same kind of processor has the
same losses as one that was left alone.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...device.dtype_device import choose_device
from ...device.processes import ALONE, Processes
from ...device.processor import HALF, choose_precision, instruction_set, threads, warn_of_slow_type
from ...errors import CheckpointError, StageError, TrainingError
from ...learning.cosine_decay import half_cosine
from ...progress import Progress
from ...recipe.training import TrainingConfig
from ...store.stage_places import CHECKPOINTS
from ...store.whole_files import read_json, write_json
from ..tokenizer import CaptionTokenizer
from .checkpoints import METRICS, MetricsLog, latest_checkpoint, restore_checkpoint, save_checkpoint
from .data import CuratedSplit, Share, shares_of

EMA_RAMP = 0.1  # the average never reaches further back than this share of the images seen
GRADIENT_CLIP = 1.0
COMPUTING_NAME, DIVERGED_NAME = "computing.json", "diverged.json"
KEYS_TOLD = 5

log = logging.getLogger(__name__)
LossOfStep = Callable[[nn.Module, int, Share], Tensor]
KeysOfStep = Callable[[int], Sequence[str]]
AtCheckpoint = Callable[[Mapping[str, Tensor], int], None]


class DivergedError(TrainingError):
    """The loss of a step or its gradient is not finite."""

    def __init__(self, message: str, step: int) -> None:
        """Keep the step's number, from 0."""
        super().__init__(message)
        self.step = step


@dataclass(frozen=True)
class Computing:
    """How a training computes, from its first step to its last.

    Attributes:
        precision: `float32` or `bfloat16`.
        num_threads: threads that share a sum, in each process.
        num_processes: how many train together; what was trained goes on with another number, and then with its threads.
        processors: kind of device and instructions of every start, without repeats; the first began the training.
    """

    precision: str
    num_threads: int
    num_processes: int
    processors: tuple[str, ...]

    @classmethod
    def settle(cls, asked: str, checkpoints: Path, num_processes: int) -> "Computing":
        """What a training that was stopped began with; for a new one, what fits this machine. Written down beside the checkpoints.

        Raises:
            CheckpointError: what was written down cannot be read.
        """
        device, path = choose_device(None), checkpoints / COMPUTING_NAME
        here = describe_processor(device)
        if not path.exists():
            settled = cls(choose_precision(asked, device), torch.get_num_threads(), num_processes, (here,))
        else:
            begun = cls.read(path)
            num_threads = begun.num_threads if num_processes == begun.num_processes else torch.get_num_threads()
            settled = cls(begun.precision, num_threads, num_processes, (*(kind for kind in begun.processors if kind != here), here))
            begun.tell_differences(torch.get_num_threads(), num_processes, here)
            if begun.precision == HALF:
                warn_of_slow_type(torch.bfloat16, device, "precision: float32, with which the training begins anew")
        write_json(path, asdict(settled))
        return settled

    @classmethod
    def read(cls, path: Path) -> "Computing":
        """Read what a training began with.

        Raises:
            CheckpointError: it is malformed.
        """
        try:
            return cls.parse(read_json(path))
        except (StageError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: malformed, so that nothing says in which precision and with how many threads the training began. "
                                  "Remove this one file, and it goes on from its newest checkpoint with what fits this machine") from error

    @classmethod
    def parse(cls, value: Any) -> "Computing":
        """From plain data.

        Raises:
            KeyError, TypeError, ValueError: it is malformed.
        """
        return cls(str(value["precision"]), int(value["num_threads"]), int(value["num_processes"]), tuple(map(str, value["processors"])))

    def tell_differences(self, num_threads: int, num_processes: int, processor: str) -> None:
        """Log what is kept although this machine would choose otherwise, and what cannot be kept."""
        if num_processes != self.num_processes:
            log.warning("training began in %d process(es) and goes on in %d: its last bits will not be those of one number alone",
                        self.num_processes, num_processes)
        elif num_threads != self.num_threads:
            log.warning("training goes on with %d threads, as it began; this process has %d", self.num_threads, num_threads)
        if processor != self.processors[0]:
            log.warning("training began on another kind of processor and goes on in %s: its last bits will not be those of one kind alone "
                        "(began on %s, is now on %s)", self.precision, self.processors[0], processor)


def describe_processor(device: torch.device) -> str:
    """Kind of device and what decides its roundings."""
    return f"cuda {torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"cpu {instruction_set()}"


@dataclass(frozen=True)
class TrainedModel:
    """What the loop hands back: the network, its average or none, and figures of the run.

    Attributes:
        model: final weights.
        ema: averaged weights by name, or none.
        final_loss: mean loss over the last tenth of the steps.
        num_steps, num_images: how far it went.
        images_per_second: of this process, since it started or resumed.
        computing: precision, threads and processors.
    """

    model: nn.Module
    ema: dict[str, Tensor] | None
    final_loss: float
    num_steps: int
    num_images: int
    images_per_second: float
    computing: Computing


def train(config: TrainingConfig, model: nn.Module, loss_of_step: LossOfStep, directory: Path, *, ema_half_life_images: int | None,
          progress: Progress | None = None, at_checkpoint: AtCheckpoint | None = None, processes: Processes = ALONE,
          keys_of_step: KeysOfStep | None = None) -> TrainedModel:
    """Train until `config.num_images` images were seen, from the newest checkpoint if there is one.

    Args:
        config: optimisation.
        model: fresh weights, already the same on every start.
        loss_of_step: computes the mean loss of a share of a step, given the model, the step's number and the share; seeds itself.
        directory: where checkpoints and metrics.jsonl go.
        ema_half_life_images: images after which the average has forgotten half; none: no average.
        progress: told images done, images in all, and a line with loss, rate and time left.
        at_checkpoint: called with the averaged (or plain) weights and the images seen before each checkpoint is written.
        processes: that train together; the first alone writes and is told.
        keys_of_step: names of a step's images, for the error of a training that diverges.

    Returns:
        The trained network; the figures are those of the first process.

    Raises:
        TrainingError: the loss or its gradient is not finite.
        CheckpointError: a checkpoint of an earlier attempt does not fit.
    """
    first = asdict(Computing.settle(config.precision, directory / CHECKPOINTS, processes.number)) if processes.is_first else None
    computing = Computing.parse(processes.tell(first))
    with threads(computing.num_threads):
        state = TrainingState.create(config, model, ema_half_life_images, precision=computing.precision, processes=processes)
        try:
            return _train(state, loss_of_step, directory, computing, progress=progress, at_checkpoint=at_checkpoint)
        except DivergedError as error:
            processes.wait_for_first()  # which alone tells
            keys = list(keys_of_step(error.step)) if keys_of_step is not None else []
            path = directory / CHECKPOINTS / DIVERGED_NAME
            write_json(path, {"step": error.step + 1, "error": str(error), "keys": keys})
            images = f" Its {len(keys)} images are named in {path} (the first: {', '.join(keys[:KEYS_TOLD])})" if keys else ""
            raise TrainingError(f"{error}.{images}") from error


def _train(state: "TrainingState", loss_of_step: LossOfStep, directory: Path, computing: Computing, *, progress: Progress | None,
           at_checkpoint: AtCheckpoint | None) -> TrainedModel:
    # --- go on from the newest checkpoint
    config, model, processes = state.config, state.model, state.processes
    checkpoints, batch_size = directory / CHECKPOINTS, config.batch_size
    newest = latest_checkpoint(checkpoints) if processes.is_first else None
    name = processes.tell(newest and newest.name)
    checkpoint = checkpoints / name if name else None
    first_step = restore_checkpoint(checkpoint, model, state.optimizer, state.ema) if checkpoint else 0
    num_steps, checkpoint_steps = config.num_steps, max(1, config.checkpoint_images // batch_size)
    started = time.monotonic()
    with MetricsLog(directory / METRICS, checkpoint) if processes.is_first else nullcontext() as metrics:
        for step in range(first_step, num_steps):
            # --- one step
            num_images = (step + 1) * batch_size
            figures = state.step(loss_of_step, step)
            if metrics is None:
                continue
            metrics.append(metrics_line(step + 1, num_images, figures))
            # --- tell
            if progress is not None:
                line = describe_rate(figures["loss"], num_images - first_step * batch_size, started, config.num_images - num_images)
                progress(min(num_images, config.num_images), config.num_images, line)
            # --- keep
            if (step + 1) % checkpoint_steps == 0 and step + 1 < num_steps:
                if at_checkpoint is not None:  # first: a run that is killed here comes by again
                    at_checkpoint(state.ema or model.state_dict(), num_images)
                metrics.flush()
                save_checkpoint(checkpoints, num_steps=step + 1, model=model, optimizer=state.optimizer, ema=state.ema,
                                metrics=directory / METRICS)
    seconds = max(time.monotonic() - started, 1e-9)
    final_loss = mean_final_loss(directory / METRICS) if processes.is_first else math.nan
    return TrainedModel(model=model, ema=state.ema, final_loss=final_loss, num_steps=num_steps,
                        num_images=num_steps * batch_size, images_per_second=(num_steps - first_step) * batch_size / seconds,
                        computing=computing)


@dataclass(frozen=True)
class TrainingState:
    """A network with its optimiser and average, able to take one step.

    Attributes:
        config: optimisation.
        model: the network whose weights are trained.
        optimizer: AdamW over the model's parameters.
        ema: averaged weights by name, or none.
        ema_half_life_images: images after which the average has forgotten half.
        device: where it computes.
        precision: `float32`, or `bfloat16` for a network under autocast.
        processes: that train together.
        spread: the network as losses see it: its gradients are the mean over all processes.
    """

    config: TrainingConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor] | None
    ema_half_life_images: int | None
    device: torch.device
    precision: str
    processes: Processes
    spread: nn.Module

    @classmethod
    def create(cls, config: TrainingConfig, model: nn.Module, ema_half_life_images: int | None, *, precision: str,
               processes: Processes = ALONE) -> "TrainingState":
        """Place a model with fresh weights and make its optimiser; the first process alone averages."""
        device = choose_device(None)
        model.to(device).train()
        averages = ema_half_life_images is not None and processes.is_first
        ema = {name: value.detach().clone() for name, value in model.state_dict().items()} if averages else None
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay,
                                      fused=True)  # one pass over each parameter: a third of the time
        return cls(config, model, optimizer, ema, ema_half_life_images, device, precision, processes, processes.spread(model))

    def step(self, loss_of_step: LossOfStep, step: int) -> dict[str, float]:
        """Take step number `step`: loss, gradient, weights, average.

        Returns:
            loss, learning_rate and grad_norm, rounded as metrics.jsonl holds them.

        Raises:
            DivergedError: the loss or its gradient is not finite; the weights were left alone.
        """
        config, seen = self.config, step * self.config.batch_size
        rate = learning_rate(config, seen)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        shares = shares_of(config, self.processes)
        total = torch.zeros((), device=self.device)
        for share in shares:
            with self.processes.apart(self.spread, is_apart=share != shares[-1]):
                # without the cache, which a caller's own autocast would keep over steps, and each weight is used once in a step
                with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16", cache_enabled=False):
                    loss = loss_of_step(self.spread, step, share)
                torch.autograd.backward(loss / len(shares))
            total += loss.detach() / len(shares)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_CLIP)
        value, grad_norm = self.processes.mean(total).item(), norm.item()
        if not (math.isfinite(value) and math.isfinite(grad_norm)):
            raise DivergedError(f"loss is {value} and its gradient's norm {grad_norm} at step {step + 1} ({seen + config.batch_size} images): "
                                "training has diverged; lower learning_rate, or use precision float32, and run again", step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None and self.ema_half_life_images:
            update_average(self.ema, self.model, decay=average_decay(config.batch_size, seen + config.batch_size, self.ema_half_life_images))
        return {"loss": round(value, 6), "learning_rate": round(rate, 9), "grad_norm": round(grad_norm, 5)}


def metrics_line(step: int, num_images: int, figures: Mapping[str, float]) -> str:
    """A line of metrics.jsonl."""
    return json.dumps({"step": step, "num_images": num_images, **figures})


def learning_rate(config: TrainingConfig, num_images: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    warmup = min(1.0, (num_images + config.batch_size) / max(config.warmup_images, config.batch_size))
    return config.learning_rate * warmup * half_cosine(min(1.0, num_images / config.num_images))


def average_decay(batch_size: int, num_images: int, half_life_images: int) -> float:
    """Weight of the old average in one step; the half-life grows with the run (arXiv 2206.00364, appendix F.2)."""
    return float(0.5 ** (batch_size / min(half_life_images, EMA_RAMP * num_images)))


def update_average(ema: dict[str, Tensor], model: nn.Module, *, decay: float) -> None:
    """Move the average towards the weights, in place."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            ema[name].lerp_(value.to(ema[name].dtype), 1 - decay)


def describe_rate(loss: float, num_images: int, started: float, images_left: int) -> str:
    """A line for the progress bar: loss, images per second, time left."""
    rate = num_images / max(time.monotonic() - started, 1e-9)
    minutes, seconds = divmod(int(max(images_left, 0) / rate), 60)
    return f"loss {loss:.4f}, {rate:.1f} images/s, {minutes}:{seconds:02d} left"


def mean_final_loss(metrics: Path) -> float:
    """Mean loss over the last tenth of the steps of a metrics.jsonl."""
    losses = [json.loads(line)["loss"] for line in metrics.read_text(encoding="utf-8").splitlines()]
    last = losses[-max(1, len(losses) // 10):]
    return round(math.fsum(last) / len(last), 6)


def seed_step(seed: int, step: int) -> None:
    """Seed everything that a step draws, dropout included."""
    torch.manual_seed((seed * 1_000_003 + step) % 2**63)


def seed_share(seed: int, step: int, share: Share) -> None:
    """Seed what the network itself draws (dropout): otherwise in each share of a step; a whole step goes on as it was seeded."""
    if share.of > 1:
        torch.manual_seed(int.from_bytes(sha256(f"{seed} {step} {share.number} {share.of}".encode()).digest()[:7]))


def plain_summary(trained: TrainedModel) -> dict[str, Any]:
    """The deterministic figures for the stage's record."""
    return {"num_steps": trained.num_steps, "num_images_seen": trained.num_images, "final_loss": trained.final_loss,
            "num_parameters": sum(p.numel() for p in trained.model.parameters())}


def count_cut_captions(stage: str, tokenizer: CaptionTokenizer, data: CuratedSplit, max_length: int) -> dict[str, int]:
    """How many of the captions have more tokens than a network reads, for the stage's summary; the log says so."""
    num_captions = sum(1 for _ in data.texts)
    num_cut = tokenizer.count_cut(data.texts, max_length)
    if num_cut:
        log.warning("%s: %d of %d captions have more than %d tokens, and their ends are cut; a preset with a longer context reads more of them",
                    stage, num_cut, num_captions, max_length)
    return {"num_captions": num_captions, "num_captions_cut": num_cut}


def stage_summary(trained: TrainedModel, data: CuratedSplit, seed: int) -> dict[str, Any]:
    """What a training stage hands to `run_stage`: its figures, what exactly it consumed, and under `environment` the rate and device."""
    device, computing = next(trained.model.parameters()).device, trained.computing
    environment = {"images_per_second": round(trained.images_per_second, 2), "device": str(device), "num_threads": computing.num_threads,
                   "num_processes": computing.num_processes,
                   "processors": list(computing.processors),
                   **({"device_name": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})}
    return plain_summary(trained) | {"num_train_examples": len(data), "consumed_sha256": data.consumed_sha256, "seed": seed,
                                     "precision": computing.precision, "environment": environment}
