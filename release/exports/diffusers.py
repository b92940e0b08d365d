"""Export a release as a directory that plain diffusers loads, with code generated from the models' own sources.

The weights, configurations and the tokenizer are the release's files, byte for byte. The code is bundled from the modules that
glideslope itself runs (see `bundle`), so that there is no second implementation, checked against what such code may contain,
and listed with everything else in export.json. An export is a copy for convenience: the evidence stays with the release.

Layout: diffusers 0.42 (a custom pipeline beside custom components).
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ...config import Recipe
from ...errors import CheckpointError, ReleaseError, VerificationError
from ...manifest import MANIFEST_NAME, Manifest, ReleaseManifest, storage_error, write_bytes, write_json
from ...models.loading import read_schedule
from ...records import INTENT_NAME
from ...weight_files import STEM, SUFFIX, parse_weights_name
from ..claims.data import unsafe_claims
from ..contents import Release
from ..layout import OPTIONAL_MODELS, parse_json_object
from .bundle import bundle
from .code_check import count_pipelines, find_forbidden

EXPORT_NAME = "export.json"
EXPORT_FORMAT = "glideslope.diffusers-export/1"
DIFFUSERS_VERSION = "0.42.1"
SHIM = "glideslope.release.exports.shim"
NETWORKS = {"base": ("modeling_glide", "GlideUNet"), "noised_clip": ("modeling_clip", "GlideNoisedClip")}
TOKENIZER = ("tokenizer_glide", "GlideTokenizer")
PIPELINE = ("pipeline", "GlidePipeline")
DROPPED = {"CaptionTokenizer": ("train", "load", "save")}
OVERRIDES = ("clean_for_clip",)
TERMS = ("LICENSE", "USE_POLICY.md")
# The stock scheduler's spelling of our two noise schedules (arXiv 2006.11239, 2102.09672).
BETAS = {"linear": {"beta_start": 1e-4, "beta_end": 0.02}, "squaredcos_cap_v2": {}}


def export_diffusers(release_dir: Path, out: Path) -> dict[str, Any]:
    """Write an export of a release.

    Args:
        release_dir: a release that `verify` passes; its files are copied, never changed.
        out: where the export goes; must not be there, or be empty.

    Returns:
        What was written: components, what was left out and why, number of files, root of the list of files.

    Raises:
        ReleaseError: no release, files that are not what its manifest says, or a directory that is not empty.
        StorageError: the directory cannot be written.
    """
    release = Release(release_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ReleaseError(f"{out}: is there already and no empty directory; name a new one, nothing is overwritten")
    manifest = ReleaseManifest.read(release.path(MANIFEST_NAME))
    problems = manifest.differences(release_dir)
    if problems:
        raise ReleaseError(f"{release_dir}: is not what its manifest says ({'; '.join(problems[:3])}); pack the release again")
    networks, left_out = choose_networks(release)
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        copy_files(release, networks, partial)
        write_code(partial, networks)
        write_json(partial / "model_index.json", model_index(networks))
        write_json(partial / "scheduler/scheduler_config.json", scheduler_config(release_dir))
        write_bytes(partial / "README.md", readme(release, manifest, left_out).encode())
        listing = write_listing(partial, manifest)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise storage_error(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {"components": list(networks), "left_out": left_out, "num_files": len(listing.files), "root": listing.root}


def choose_networks(release: Release) -> tuple[tuple[str, ...], dict[str, str]]:
    """The networks that go into an export, and those that do not, with the reason."""
    left_out = {name: "the exported pipeline draws at the base's size and does not edit" for name in OPTIONAL_MODELS
                if (release.directory / name).is_dir()}
    if (release.directory / "clip_tokenizer").is_dir():
        return ("base",), left_out | {"noised_clip": "its captions have a tokenizer of their own, which an export does not bring"}
    return ("base", "noised_clip"), left_out


def copy_files(release: Release, networks: Sequence[str], out: Path) -> None:
    """Copy configurations, weights, tokenizer and terms as they are."""
    paths = [release.path("tokenizer/tokenizer.json"), *(release.path(name) for name in TERMS if (release.directory / name).is_file())]
    for name in networks:
        folder = release.directory / name
        paths += [folder / "config.json", *(path for path in sorted(folder.iterdir())
                                            if parse_weights_name(path.name) or path.name.startswith(f"{STEM}{SUFFIX}.index."))]
    for path in paths:
        target = out / path.relative_to(release.directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def generate_code(networks: Sequence[str]) -> dict[str, str]:
    """The code of an export by its path: self-contained modules, generated from ours.

    Raises:
        ReleaseError: our sources cannot be bundled, or would bring what such code may not contain.
    """
    header = (f"Generated by glideslope {__version__} from its own sources, for diffusers {DIFFUSERS_VERSION}; do not edit: export.json lists "
              "this file's digest.\n")
    roots = {"pipeline.py": PIPELINE, f"tokenizer/{TOKENIZER[0]}.py": TOKENIZER} | {f"{name}/{NETWORKS[name][0]}.py": NETWORKS[name]
                                                                                for name in networks}
    code = {path: bundle(f"{SHIM}.{module}", [name], header, dropped=DROPPED, overrides=OVERRIDES if (module, name) == TOKENIZER else ())
            for path, (module, name) in roots.items()}
    problems = [problem for path, text in code.items() for problem in find_forbidden(text, where=path)]
    problems += [f"{path}: holds {number} pipelines, expected {expected}" for path, text in code.items()
                 if (number := count_pipelines(text)) != (expected := int(path == "pipeline.py"))]
    if problems:
        raise ReleaseError(f"diffusers export: the generated code is refused: {'; '.join(problems)}")
    return code


def write_code(out: Path, networks: Sequence[str]) -> None:
    """Write the generated modules."""
    for path, text in generate_code(networks).items():
        write_bytes(out / path, text.encode())


def model_index(networks: Sequence[str]) -> dict[str, Any]:
    """What diffusers reads first: the pipeline, and module and class of each component."""
    parts = {name: list(NETWORKS[name]) for name in networks} | {"tokenizer": list(TOKENIZER), "scheduler": ["diffusers", "DDPMScheduler"]}
    return {"_class_name": list(PIPELINE), "_diffusers_version": DIFFUSERS_VERSION, "noised_clip": [None, None], **parts}


def scheduler_config(release_dir: Path) -> dict[str, Any]:
    """The noise schedule as diffusers' own scheduler spells it.

    Raises:
        ReleaseError: the release's schedule is not readable.
    """
    try:
        schedule = read_schedule(release_dir / "scheduler/scheduler_config.json")
    except CheckpointError as error:
        raise ReleaseError(f"{error}; pack the release again") from error
    betas: Mapping[str, float] = BETAS[schedule]
    return {"_class_name": "DDPMScheduler", "_diffusers_version": DIFFUSERS_VERSION, "num_train_timesteps": 1000, "beta_schedule": schedule,
            "variance_type": "learned_range", "clip_sample": True, "prediction_type": "epsilon", **betas}


def write_listing(out: Path, manifest: ReleaseManifest) -> Manifest:
    """Write export.json: which release this comes from, and every file with its digest."""
    listing = Manifest.of_directory(out, exclude=(EXPORT_NAME, INTENT_NAME))
    write_json(out / EXPORT_NAME, {"format": EXPORT_FORMAT, "glideslope": __version__, "diffusers": DIFFUSERS_VERSION,
                                   "release_root": manifest.root, "release_tensors_root": manifest.tensors_root, "root": listing.root,
                                   "manifest": listing.to_json()})
    return listing


def check_export(directory: Path, *, release_root: str | None = None) -> list[str]:
    """One sentence for everything in an export that is not as it was written, or whose code is not what this glideslope generates.

    Args:
        directory: the export.
        release_root: the root of the release that it must come from; none does not look.
    """
    try:
        stated = parse_json_object((directory / EXPORT_NAME).read_bytes())
        listing = Manifest.from_json(stated["manifest"])
    except (OSError, ValueError, KeyError, TypeError, VerificationError) as error:
        return [f"{EXPORT_NAME}: not readable ({error}); export the release again"]
    problems = listing.differences(directory, exclude=(EXPORT_NAME,))
    if stated.get("root") != listing.root:
        problems.append(f"{EXPORT_NAME}: does not fit its own list; export the release again")
    if release_root is not None and stated.get("release_root") != release_root:
        problems.append(f"{EXPORT_NAME}: comes from the release {str(stated.get('release_root'))[:12]}…, not {release_root[:12]}…")
    code = {path: (directory / path).read_text(encoding="utf-8") for path in (entry.path for entry in listing.files) if path.endswith(".py")}
    return problems + [problem for path, text in code.items() for problem in find_forbidden(text, where=path)]


def readme(release: Release, manifest: ReleaseManifest, left_out: Mapping[str, str]) -> str:
    """The page of an export: what it is, where its evidence lies, how to load it."""
    recipe: Recipe = release.recipe
    warnings = [f"> - `{row['gate']}`, because: {row['reason']}" for row in unsafe_claims(release)["unsafe.bypasses"]]
    missing = [f"- `{name}` is left out: {reason}." for name, reason in left_out.items()]
    evaluate = recipe.evaluate
    return "\n".join([
        "---", f"license: {recipe.release.license}", "library_name: diffusers", "pipeline_tag: text-to-image", "---", "",
        f"# {recipe.release.title}, for diffusers", "",
        *(["> **Warning: the release did not pass every gate.** Its publisher set aside:", *warnings, ""] if warnings else []),
        "A copy of a glideslope release that plain [diffusers](https://github.com/huggingface/diffusers) loads. What was filtered out of "
        "the training data, how sure that is and what remains stands on the release's own card, with its evidence.", "",
        f"- Manifest root of the release: `{manifest.root}`", f"- Root of its tensors: `{manifest.tensors_root}`",
        f"- `{EXPORT_NAME}` lists every file of this directory with its digest.", *missing, "",
        "```python", "from diffusers import DiffusionPipeline", "",
        'pipe = DiffusionPipeline.from_pretrained("DIRECTORY", trust_remote_code=True)',
        f'image = pipe("a red apple", guidance_scale={evaluate.guidance_scale:g}, num_inference_steps={evaluate.num_steps}, seed=0).images[0]',
        'image.save("apple.png")', "```", "",
        "`trust_remote_code=True` runs the Python files in this directory. They are generated from glideslope's sources, import only torch, "
        "diffusers, safetensors, tokenizers, numpy and PIL, and draw the same picture as glideslope from the same seed. "
        "Without it diffusers refuses. To run no code of a repository, load the release with glideslope instead.", "",
        f"Licence: `{recipe.release.license}`, see LICENSE."]) + "\n"
