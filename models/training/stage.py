"""The stage `training/<network>`: one for each network that a recipe trains, from the file of that name in this folder.

Such a file ends in `STAGE`: how its network is trained, what its settings must fit, how long it will take.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from ...device.processes import ALONE, Processes
from ...device.torch_state import PlainTorch
from ...errors import RecipeError
from ...progress import Progress
from ...recipe.components import NETWORKS, TOKENIZERS, TRAINED_NETWORKS, Training
from ...recipe.training import TrainingConfig
from ...store.digests import sha256_file
from ...store.records import Record, read_record, run_stage

Settings = TypeVar("Settings", bound=TrainingConfig)


@dataclass(frozen=True)
class TrainingData:
    """What a training reads.

    Attributes:
        curated: directory of the curated set.
        curated_digest: digest of its record.
        index: directory of the index that it was curated from.
        trained: directory that holds a folder for each network; those that were trained earlier are read.
    """

    curated: Path
    curated_digest: str
    index: Path
    trained: Path

    @property
    def tokenizer(self) -> Path:
        """tokenizer.json that an earlier training wrote; not read by the training that writes it."""
        row = TOKENIZERS["tokenizer"]
        return self.trained / str(row.trained_with) / row.file


@dataclass(frozen=True)
class TrainingTask(Generic[Settings]):
    """One training to do.

    Attributes:
        config: the recipe's settings of the network.
        data: what it reads.
        seed: of weights, order, noise and dropout.
        progress: told images done, images in all, and a line.
        processes: that train together; the first alone writes.
    """

    config: Settings
    data: TrainingData
    seed: int
    progress: Progress | None = None
    processes: Processes = ALONE


@dataclass(frozen=True)
class TrainingStage(Generic[Settings]):
    """How one network is trained.

    Attributes:
        train: does a task in the stage's partial directory, and returns the summary for its record.
        check: refuses settings that do not fit those of the other networks (by name) with a RecipeError, before anything is read.
        estimate: seconds that so many images will take on this machine; given what measures the seconds that one image takes when
            the base model draws a step of it.
    """

    train: Callable[[TrainingTask[Settings], Path], Mapping[str, Any]]
    check: Callable[[Settings, Mapping[str, Training]], None]
    estimate: Callable[[Settings, int, Callable[[], float]], float]


def find_stage(network: str) -> TrainingStage[Any]:
    """The training of a network.

    Raises:
        RecipeError: a network that recipes do not train.
    """
    if network not in TRAINED_NETWORKS:
        raise RecipeError(f"{network}: recipes do not train such a network; choose from {', '.join(TRAINED_NETWORKS)}")
    stage: TrainingStage[Any] = import_module(f".{network}", __package__).STAGE
    return stage


def check_trainings(trainings: Mapping[str, Training], num_processes: int = 1) -> None:
    """Refuse networks that cannot draw together, and steps that cannot be shared, before anything is read.

    Args:
        trainings: name of each network to train -> its settings.
        num_processes: how many train together.

    Raises:
        RecipeError: an unknown preset, presets that do not fit together, or a batch that cannot be cut in so many parts.
    """
    for network, config in trainings.items():
        find_stage(network).check(config, trainings)
        if config.batch_size % (num_processes * config.num_parts):
            parts = f", each in {config.num_parts} parts (accumulation)" if config.num_parts > 1 else ""
            raise RecipeError(f"{network}.batch_size: {config.batch_size} images cannot be shared by {num_processes} process(es){parts}; "
                              f"choose a multiple of {num_processes * config.num_parts}, or start another number of processes")


def train_network(network: str, config: Training, data: TrainingData, directory: Path, *, seed: int,
                  progress: Progress | None = None, processes: Processes = ALONE) -> Record:
    """Run the stage `training/<network>`; in the first process, where several train together.

    Args:
        network: its name.
        config: its settings.
        data: what it reads.
        directory: the stage's directory.
        seed: of weights, order, noise and dropout.
        progress: told images done, images in all, and a line.
        processes: that train together; the others are in `follow_training`.

    Raises:
        TrainingError: nothing to train on, or training diverged.
        RecipeError: an unknown preset, or a network that recipes do not train.
    """
    stage, task = find_stage(network), TrainingTask(config, data, seed, progress, processes)
    inputs = {"curated": data.curated_digest}
    if TOKENIZERS[NETWORKS[network].tokenizers[-1]].trained_with != network:
        inputs["tokenizer"] = sha256_file(data.tokenizer)
    if (continued := NETWORKS[network].continues) is not None:
        inputs[f"training/{continued}"] = read_record(data.trained / continued).digest
    settings = config.model_dump(mode="json", exclude=set(config.PACE)) | {"seed": seed}

    def work(partial: Path) -> Mapping[str, Any]:
        processes.tell(str(partial.absolute()))
        return stage.train(task, partial)

    record = run_stage(directory, stage=f"training/{network}", config=settings, inputs=inputs, work=work, is_costly=True, pace=config.PACE)
    processes.tell(None)
    return record


def follow_training(network: str, config: Training, data: TrainingData, *, seed: int, processes: Processes) -> None:
    """Take part in a training whose stage the first process runs, until it is finished there.

    Raises:
        TrainingError: as in `train_network`.
        LostProcessError: another process has ended.
    """
    stage, task = find_stage(network), TrainingTask(config, data, seed, None, processes)
    while (partial := processes.tell(None)) is not None:
        with PlainTorch(gradients=True):
            stage.train(task, Path(partial))
