"""What the stages of a run are called, and where all that a run writes lies. No other module spells either."""

from dataclasses import dataclass
from pathlib import Path

INDEX, CLIP, LABELS, LABELLED, CURATED, EVALUATION, RELEASE = "index", "clip", "labels", "labelled", "curated", "evaluation", "release"
GOLDEN, COMPANIONS = "golden", "companions"  # done while packing; only a release holds their records


def classifier_stage(category: str) -> str:
    """Name of the stage that fits a category's classifier."""
    return f"classifiers/{category}"


def scores_stage(category: str) -> str:
    """Name of the stage that scores every input for a category."""
    return f"scores/{category}"


def filter_stage(category: str) -> str:
    """Name of the stage that sets a category's threshold and measures the filter."""
    return f"filters/{category}"


def mutation_stage(category: str) -> str:
    """Name of the stage that tests a category's filter with changed pictures."""
    return f"mutations/{category}"


def audit_stage(category: str, audit_id: str) -> str:
    """Name under which an audit of what a category's filter kept is recorded."""
    return f"audits/{category}/{audit_id}"


def training_stage(network: str) -> str:
    """Name of the stage that trains a network."""
    return f"training/{network}"


@dataclass(frozen=True)
class RunLayout:
    """The paths of one run.

    Attributes:
        root: the run's directory.
    """

    root: Path

    def stage(self, name: str) -> Path:
        """The directory of a stage, by its name."""
        return self.root / name

    @property
    def recipe(self) -> Path:
        """The recipe that the run was made with, a file."""
        return self.root / "recipe.yaml"

    @property
    def policy(self) -> Path:
        """The policy that its release is held to, a file."""
        return self.root / "policy.yaml"

    @property
    def lock(self) -> Path:
        """The file that keeps a second process out."""
        return self.root / ".lock"

    @property
    def index(self) -> Path:
        """One row an input, with its embedding."""
        return self.stage(INDEX)

    @property
    def clip(self) -> Path:
        """The text tower that was trained for lite0."""
        return self.stage(CLIP)

    @property
    def labels(self) -> Path:
        """The store of all labels."""
        return self.stage(LABELS)

    @property
    def labelled(self) -> Path:
        """The rows of the index that have labels."""
        return self.stage(LABELLED)

    def classifier(self, category: str) -> Path:
        """A category's classifier."""
        return self.stage(classifier_stage(category))

    def scores(self, category: str) -> Path:
        """A category's scores of every input."""
        return self.stage(scores_stage(category))

    def filter(self, category: str) -> Path:
        """A category's threshold, and what it proves."""
        return self.stage(filter_stage(category))

    def mutations(self, category: str) -> Path:
        """A category's test with changed pictures."""
        return self.stage(mutation_stage(category))

    @property
    def all_audits(self) -> Path:
        """A folder a category, and in it one an audit."""
        return self.root / "audits"

    def audits(self, category: str) -> Path:
        """A category's audits, a folder each."""
        return self.all_audits / category

    def audit(self, category: str, audit_id: str) -> Path:
        """One audit."""
        return self.stage(audit_stage(category, audit_id))

    @property
    def curated(self) -> Path:
        """The curated set and its ledger."""
        return self.stage(CURATED)

    @property
    def ledger(self) -> Path:
        """The ledger's files, one a shard of the index."""
        return self.curated / "ledger"

    def training(self, network: str) -> Path:
        """A trained network."""
        return self.stage(training_stage(network))

    @property
    def evaluation(self) -> Path:
        """What the trained model draws, and how it was judged."""
        return self.stage(EVALUATION)

    @property
    def release(self) -> Path:
        """The packed release."""
        return self.stage(RELEASE)

    @property
    def report(self) -> Path:
        """The page about the filters, a file."""
        return self.root / "report.html"
