"""A run: the recipe's stages in their order, each skipped when its record matches."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .errors import LabelError, RecipeError, StageError
from .progress import Progress
from .recipe.components import NETWORKS, SCHEDULERS
from .recipe.load import dump_recipe, load_recipe
from .recipe.policy import POLICY_NAME, Policy, load_policy
from .recipe.recipe import Recipe
from .recipe.training import TrainingConfig
from .run_status import StageStatus, State, read_status
from .store.locks import locked
from .store.records import Record, check_outputs, read_record
from .store.run_layout import (
    CLIP,
    CURATED,
    EVALUATION,
    INDEX,
    LABELS,
    RELEASE,
    RunLayout,
    classifier_stage,
    filter_stage,
    mutation_stage,
    scores_stage,
    training_stage,
)
from .store.stage_places import CHECKPOINTS, StagePlaces
from .store.whole_files import storage_error, write_bytes

if TYPE_CHECKING:
    from .data_filter.audits.population import AuditRequest
    from .data_filter.audits.report import AuditReport
    from .data_filter.reports.galleries import Pictures
    from .data_filter.reports.report import Report
    from .data_filter.sources.source import Source
    from .device.processes import Processes

log = logging.getLogger(__name__)


class Reporter(Protocol):
    """Who is told what a run is doing."""

    def stage(self, name: str) -> AbstractContextManager[Progress]:
        """A stage begins; the progress callback is valid until the context ends."""
        ...


class Silent:
    """A reporter that says nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """Yield a callback that does nothing."""
        yield lambda done, total, text: None


def read_recipe(path: Path) -> Recipe:
    """Read a recipe whose source is of any kind that there is; see `load_recipe`."""
    from .data_filter.sources.kinds import read_source

    return load_recipe(path, read_source)


def find_recipe(name: str) -> Recipe:
    """Read a recipe by path, or one of the ready-made ones by name.

    Raises:
        RecipeError: no such file and no such name, or a recipe that is refused.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return read_recipe(path)
    ready = resources.files("glideslope.recipes")
    known = sorted(item.name.removesuffix(".yaml") for item in ready.iterdir() if item.name.endswith(".yaml"))
    if name not in known:
        raise RecipeError(f"recipe {name!r}: no such file, and no ready-made recipe of that name (there are {', '.join(known)})")
    with resources.as_file(ready / f"{name}.yaml") as file:
        return read_recipe(file)


@dataclass(frozen=True)
class Engine:
    """Where the shards of a stage are worked on; no part of the recipe, for it does not change a byte of what comes out.

    Attributes:
        name: `local` or `ray`.
        workers: how many processes; None: this one, or on Ray one per GPU or else per CPU of the cluster.
    """

    name: str = "local"
    workers: int | None = None


@dataclass(frozen=True)
class Run:
    """One run directory and the stages that fill it.

    Attributes:
        recipe: the resolved recipe.
        directory: where the run lives.
        reporter: who is told.
        engine: where shards are embedded and scored.
    """

    recipe: Recipe
    directory: Path
    reporter: Reporter
    engine: Engine = Engine()

    @property
    def layout(self) -> RunLayout:
        """Where everything of the run lies."""
        return RunLayout(self.directory)

    @cached_property
    def policy(self) -> Policy:
        """How good the release must be: the policy that the recipe names, or the built-in one."""
        return load_policy(self.recipe.policy)

    def _open_source(self) -> "Source":
        from .data_filter.sources.kind import open_source

        return open_source(self.recipe.source, shard_size=self.recipe.index.shard_size)

    def _need_captions(self, stage: str) -> None:
        """Refuse a stage that works with captions where images without them are kept."""
        if self.recipe.curate.captions == "optional":
            raise RecipeError(f"{stage}: needs captions, but with curate.captions optional images without one are kept. To filter only: index, "
                              "label, fit, curate, audit, report. To train: add captions and set curate.captions to required")

    def _look_ahead(self) -> None:
        """Refuse what a look at the first inputs shows to be lost with these settings, before anything is embedded for nothing."""
        self._open_source().look_ahead(needs_captions=self.recipe.curate.captions == "required")

    def index(self) -> list[Record]:
        """Read and embed every input; for lite0, train its text tower on the captions, unless the recipe makes them optional."""
        from .data_filter.index.lite0_text_training import train_text_tower
        from .data_filter.index.stage import build_index

        self._look_ahead()
        with self.reporter.stage(INDEX) as progress:
            records = [build_index(self.recipe.source, self.recipe.clip, self.recipe.index, self.layout.index,
                                   engine=self.engine.name, workers=self.engine.workers, progress=progress)]
        if trains_text_tower(self.recipe):
            with self.reporter.stage(CLIP) as progress:
                records.append(train_text_tower(self.recipe.clip, self.layout.index, self.layout.clip,
                                                seed=self.recipe.seed, progress=progress))
        return records

    def index_part(self, part: int, num_parts: int) -> dict[str, int]:
        """Read and embed every `num_parts`-th shard, beside other processes that do the others; `index` ends the stage afterwards."""
        from .data_filter.index.parts import build_part

        self._look_ahead()
        with self.reporter.stage(INDEX) as progress:
            return build_part(self.recipe.source, self.recipe.clip, self.recipe.index, self.layout.index, part=part, num_parts=num_parts,
                              engine=self.engine.name, workers=self.engine.workers, progress=progress)

    def label(self, csv_path: Path | None = None) -> "tuple[Record, dict[str, int]]":
        """Append labels from a CSV file, or those that came with the data.

        Returns:
            The store's record, and what became of the rows that were read: how many are new, changed, unchanged or empty.

        Raises:
            LabelError: neither a file nor a source with labels of its own, or a file without any label.
        """
        from .data_filter.labels.csv_files import LabelFile, read_label_file
        from .data_filter.labels.stage import add_labels, verdicts_of_source
        from .data_filter.labels.store import LABELS_NAME

        names = [category.name for category in self.recipe.categories]
        with self.reporter.stage(LABELS):
            if csv_path is not None:
                given = read_label_file(csv_path)
            elif self.recipe.source.LABELS_FROM:
                verdicts = verdicts_of_source(self._open_source().labels(names), who=self.recipe.source.LABELS_FROM)
                given = LabelFile(verdicts, len(verdicts), 0)
            elif (self.layout.labels / LABELS_NAME).is_file():
                given = LabelFile((), 0, 0)
            else:
                raise LabelError(f"{self.layout.labels}: no labels yet, and this source brings none; import them with "
                                 "`glideslope label RECIPE --import FILE.csv` (columns key,category,label)")
            done = add_labels(given.verdicts, self.layout.labels, self.layout.index, self.recipe.labels, categories=names)
            return done.record, {"read": given.num_rows, "new": done.num_new, "changed": done.num_changed,
                                 "unchanged": done.num_unchanged, "empty": given.num_empty}

    def fit(self) -> list[Record]:
        """Per category: choose and fit a classifier, score the index, set the threshold and measure the filter."""
        from .data_filter.classifiers.fit_stage import fit_classifier
        from .data_filter.classifiers.score_stage import score_index
        from .data_filter.deciding.threshold_stage import build_filter

        source, records = self._open_source(), []
        for category in self.recipe.categories:
            with self.reporter.stage(classifier_stage(category.name)):
                records.append(fit_classifier(category, self.layout, clip=self.recipe.clip, seed=self.recipe.seed))
            with self.reporter.stage(scores_stage(category.name)) as progress:
                records.append(score_index(category, self.layout, engine=self.engine.name, workers=self.engine.workers, progress=progress))
            with self.reporter.stage(filter_stage(category.name)):
                records.append(build_filter(category, self.layout, source))
        return records

    def curate(self) -> Record:
        """Decide on every input and write the curated set."""
        from .data_filter.deciding.curate_stage import curate
        from .release.evaluation import refuse_one_caption

        with self.reporter.stage(CURATED) as progress:
            record = curate(self._open_source(), self.recipe.categories, self.layout, self.recipe.curate, progress=progress)
        if self.recipe.curate.captions == "required":
            try:
                refuse_one_caption(self.layout.curated)
            except StageError as error:  # training refuses it; who curates hears of it at once
                log.warning("%s", error)
        return record

    def audit(self, request: "AuditRequest", *, import_file: Path | None = None, who: str = "") -> "AuditReport":
        """Plan, draw or continue an audit of what a filter kept, or take its labels back, and report."""
        from .data_filter.audits.report import run_audit

        leaks = {name: demands.leak.at_most for name, demands in self.policy.categories.items() if demands.leak is not None}
        request = replace(request, demanded=leaks)
        with self.reporter.stage("audit"):
            return run_audit(self.recipe.categories, self.layout, self._open_source(), request, import_file=import_file, who=who)

    def mutate(self, *, num_positives: int = 100, num_others: int = 40) -> list[Record]:
        """Per category: plant known positives in other shapes through the whole pipeline, and count which are still found."""
        from .data_filter.mutations.stage import Plan, mutate

        records, plan = [], Plan(num_positives, num_others, self.recipe.seed)
        for category in self.recipe.categories:
            with self.reporter.stage(mutation_stage(category.name)) as progress:
                records.append(mutate(category, self.layout, self._open_source(), self.recipe.clip, plan=plan, progress=progress))
        return records

    def report(self, path: Path | None = None, *, pictures: "Pictures" = "veiled") -> "Report":
        """Write report.html into the run's directory, or to another place."""
        from .data_filter.reports.report import write_report

        with self.reporter.stage("report") as progress:
            source = None if pictures == "none" else self._open_source()
            return write_report(self.recipe, self.layout, source, path or self.layout.report, policy=self.policy, pictures=pictures,
                                progress=progress)

    def check_recipe(self, stage: str, *, num_processes: int = 1) -> None:
        """Refuse what evaluation, packing or the gates would refuse whatever is trained, and steps that processes cannot share."""
        from .models.training.stage import check_trainings
        from .release.vetting.recipe_check import check_recipe

        self._need_captions(stage)
        check_trainings(self.recipe.trainings, num_processes)
        check_recipe(self.recipe, self.policy)

    def train(self, processes: "Processes | None" = None) -> list[Record]:
        """Train each network that the recipe names; `processes` that train together, of which this is the first."""
        from .device.processes import ALONE
        from .models.training.stage import TrainingData, train_network
        from .release.evaluation import refuse_one_caption
        from .release.held_back_evaluation import refuse_nothing_held_back

        processes = processes or ALONE
        self.check_recipe("train", num_processes=processes.number)
        curated = self.layout.curated
        record = read_record(curated)
        check_outputs(curated, record)
        data = TrainingData(curated, record.digest, self.layout.index, self.layout.training("base").parent)
        refuse_one_caption(curated)
        if self.recipe.upsampler is not None:
            refuse_nothing_held_back(curated)
        records = []
        for network, config in self.recipe.trainings.items():
            with self.reporter.stage(training_stage(network)) as progress:
                records.append(train_network(network, config, data, self.layout.training(network), seed=self.recipe.seed, progress=progress,
                                             processes=processes))
        return records

    def follow(self, processes: "Processes") -> None:
        """Take part in the trainings that the first of several processes runs; what it has checked and locked is left to it."""
        from .models.training.stage import TrainingData, follow_training

        data = TrainingData(self.layout.curated, "", self.layout.index, self.layout.training("base").parent)
        for network, config in self.recipe.trainings.items():
            follow_training(network, config, data, seed=self.recipe.seed, processes=processes)

    def evaluate(self) -> Record:
        """Draw from held-back captions and let the run's CLIP judge."""
        from .release.evaluation import evaluate
        from .release.evidence.plan import evaluated_networks

        self._need_captions("evaluate")
        with self.reporter.stage(EVALUATION) as progress:
            return evaluate(self.recipe.evaluate, self.recipe.clip, self.directory, self.layout.evaluation,
                            networks=evaluated_networks(self.recipe), seed=self.recipe.seed, progress=progress)

    def pack(self) -> Record:
        """Write the release directory."""
        from .release.pack import pack

        self._need_captions("pack")
        with self.reporter.stage(RELEASE) as progress:
            return pack(self.directory, self.recipe, self.layout.release, progress=progress)

    def check(self) -> list[str]:
        """Run every gate on the release; returns the names of those that passed."""
        from .release.vetting.check import check

        with self.reporter.stage("check"):
            return check(self.layout.release)

    def check_filters(self) -> None:
        """Refuse to train where the filters show less than the policy asks for."""
        from .release.vetting.gates.filters import check_filters

        check_filters(self.recipe, self.policy, self.directory)

    def status(self) -> list[StageStatus]:
        """How every stage stands, by the records alone."""
        return read_status(self.directory, self.recipe, list_stages(self.recipe))

    def estimate(self) -> dict[str, float]:
        """Seconds that the stages which are not done yet will take on this machine, from a measurement of a few seconds.

        A training that was stopped goes on from its newest checkpoint. Where the number of inputs is not known before the source is read,
        only training and evaluation are in it.
        """
        from .clip.model import time_embedding
        from .models.diffusion.process import NoiseSchedule
        from .models.drawing.editing import UpsampleOptions
        from .models.drawing.pipeline import UPSAMPLE_BATCH
        from .models.training.pace import time_drawing
        from .models.training.stage import find_stage
        from .release.claims.held_back import MAX_OF_UPSAMPLER
        from .release.evaluation import other_scales

        recipe, evaluation = self.recipe, self.recipe.evaluate
        others, num_swept = other_scales(evaluation), min(evaluation.sweep_pairs, evaluation.num_pairs)
        passes = evaluation.num_pairs * 2 + sum(num_swept * (1 if scale == 1 else 2) for scale in others)
        num_enlarged = evaluation.num_pairs + num_swept * len(others) + MAX_OF_UPSAMPLER
        draw = cache(lambda: time_drawing(recipe.base.preset))

        def evaluate() -> float:
            """Seconds of drawing, and of enlarging where there is an upsampler."""
            drawing, upsampler = passes * evaluation.num_steps * draw(), recipe.upsampler
            if upsampler is None:
                return drawing
            schedule = NoiseSchedule(SCHEDULERS[NETWORKS["upsampler"].scheduler].schedule, upsampler.prediction_type)
            num_steps = len(UpsampleOptions().timesteps(schedule))
            return drawing + num_enlarged * num_steps * time_drawing(upsampler.preset, num_images=UPSAMPLE_BATCH)

        stages: dict[str, Callable[[], float]] = {
            training_stage(network): partial(find_stage(network).estimate, config, self._images_left(network, config), draw)
            for network, config in recipe.trainings.items()}
        stages[EVALUATION] = evaluate
        num_inputs = recipe.source.known_size()
        if num_inputs is not None and recipe.clip.model == "lite0":
            # the shares of an embedding's time were measured, see docs/measured.md
            embed = cache(lambda: num_inputs * time_embedding(recipe.clip))
            stages = {INDEX: lambda: 1.3 * embed(), CLIP: lambda: 0.054 * recipe.clip.text_epochs * embed(),
                      **{classifier_stage(category.name): lambda: 0.36 * embed() for category in recipe.categories}} | stages
        to_do = {one.stage for one in self.status() if one.state is not State.DONE}
        return {stage: measure() for stage, measure in stages.items() if stage in to_do}

    def _images_left(self, network: str, config: TrainingConfig) -> int:
        """How many images a training has still to see, after what a stopped one of the same settings has seen."""
        from .models.training.checkpoints import list_checkpoints
        from .recipe.stage_settings import is_stated, settings_of

        partial = StagePlaces.of(self.layout.training(network)).partial
        begun = StagePlaces.read_identity(partial)
        steps = [int(path.name.removeprefix("step-")) for path in list_checkpoints(partial / CHECKPOINTS)]
        if begun is None or not steps or not is_stated(settings_of(config) | {"seed": self.recipe.seed}, begun["config"]):
            return config.num_images
        return max(0, config.num_images - steps[-1] * config.batch_size)

    def all(self) -> None:
        """Every stage, then gates and verification."""
        from .release.verify import verify

        self.check_recipe("run")
        for step in STEPS:
            step.do(self)
        self.check()
        with self.reporter.stage("verify"):
            verify(self.layout.release)

    def fit_and_check(self) -> None:
        """Fit, and stop where the filters show too little for a release."""
        self.fit()
        self.check_filters()


@dataclass(frozen=True)
class Step:
    """One command of a run.

    Attributes:
        command: its name on the command line.
        stages: the stages that it does for a recipe, in their order.
        do: does them as part of a whole run.
    """

    command: str
    stages: Callable[[Recipe], tuple[str, ...]]
    do: Callable[[Run], object]


def trains_text_tower(recipe: Recipe) -> bool:
    """Whether the index stage also trains a text tower: lite0 has none of its own."""
    return recipe.clip.model == "lite0" and recipe.curate.captions == "required"


def filter_stages(recipe: Recipe) -> tuple[str, ...]:
    """What is fitted for each category."""
    return tuple(f"{kind}/{category.name}" for category in recipe.categories for kind in ("classifiers", "scores", "filters"))


# The way from images to a release: `run` goes it, `status` tells how far a run has come.
STEPS = (
    Step("index", lambda recipe: ("index", "clip") if trains_text_tower(recipe) else ("index",), lambda run: run.index()),
    Step("label", lambda recipe: ("labels",), lambda run: run.label()),
    Step("fit", filter_stages, lambda run: run.fit_and_check()),
    Step("curate", lambda recipe: ("curated",), lambda run: run.curate()),
    Step("train", lambda recipe: tuple(f"training/{network}" for network in recipe.trainings), lambda run: run.train()),
    Step("evaluate", lambda recipe: ("evaluation",), lambda run: run.evaluate()),
    Step("pack", lambda recipe: ("release",), lambda run: run.pack()),
)
OF_FILTERS = 4  # the first steps; without captions a run ends behind them


def list_steps(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of a recipe: where captions are optional, those up to the curated set."""
    return STEPS if recipe.curate.captions == "required" else STEPS[:OF_FILTERS]


def list_stages(recipe: Recipe) -> list[tuple[str, str]]:
    """The stages of a recipe in their order, each after the command that does it."""
    return [(step.command, stage) for step in list_steps(recipe) for stage in step.stages(recipe)]


@contextmanager
def open_run(recipe: Recipe, runs_dir: Path, reporter: Reporter | None = None, *, engine: Engine | None = None,
             is_part: bool = False) -> Iterator[Run]:
    """Open the run directory of a recipe for one process at a time, and write the resolved recipe and its policy into it.

    Args:
        recipe: what to run.
        runs_dir: where runs live.
        reporter: who is told; None: nobody.
        engine: where shards are worked on; None: in this process.
        is_part: others that do a part of the same stage may work on the run at the same time.

    Raises:
        ReleaseError: the policy that the recipe names cannot be read.
        StorageError: the directory cannot be written.
        StageError: another process is working in it.
    """
    directory = runs_dir / recipe.name
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(directory, error) from error
    with locked(RunLayout(directory).lock, is_shared=is_part) as is_held:
        if not is_held:
            raise StageError(f"{directory}: another glideslope process is working on this run; wait for it, or stop it")
        warn_of_other_source(recipe, directory)
        run = Run(recipe, directory, reporter or Silent(), engine or Engine())
        write_bytes(run.layout.policy, run.policy.text.encode())
        write_bytes(run.layout.recipe, dump_recipe(recipe.model_copy(update={"policy": POLICY_NAME})).encode())
        yield run


def warn_of_other_source(recipe: Recipe, directory: Path) -> None:
    """Say so when a run directory held a run on other data: two recipes may bear one name, or the data may have moved."""
    path = RunLayout(directory).recipe
    if not path.is_file():
        return
    try:
        before = read_recipe(path).source
    except RecipeError:  # of another version: what it was made of is no longer to be read
        return
    new, old = (f"{source.kind} {getattr(source, 'path', '')}".strip() for source in (recipe.source, before))
    if new != old:
        log.warning("%s: held a run on the source %s, the recipe %s names %s; labels stay with the images whose bytes are the same. If these "
                    "are two projects, give one of the recipes another name", directory, old, recipe.name, new)
