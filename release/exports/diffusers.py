"""Export a release as a directory that plain diffusers loads, with code generated from the models' own sources.

Every component of the release goes in. Weights, configurations and tokenizers are the release's files, byte for byte. The code is
bundled from the modules that glideslope itself runs (see `bundle`), so that there is no second implementation. Everything is listed in
export.json. One function says what an export holds, for writing it and for `export_check`, which makes all of it again and compares.
An export is a copy for convenience: the evidence stays with the release.

Layout: diffusers 0.42 (a custom pipeline beside custom components).
"""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from ... import __version__
from ...errors import CheckpointError, ReleaseError
from ...models.diffusion.process import NoiseSchedule
from ...models.loading.components import read_index, read_schedule
from ...models.tokenizer import CaptionTokenizer, Kind
from ...recipe.components import CLIP, COMPONENTS, INDEX_NAME, NETWORKS, OPTIONAL_NETWORKS, SCHEDULERS, TOKENIZERS, UNET
from ...recipe.recipe import Recipe
from ...store.digests import readable_json
from ...store.protected_places import refuse_in_release
from ...store.stage_manifest import Manifest
from ...store.stage_places import INTENT_NAME
from ...store.weight_files import STEM, SUFFIX, parse_weights_name
from ...store.whole_files import storage_error, sync_directory, sync_tree, write_bytes
from ...text.number_text import cell, in_code
from ..claims.data import unsafe_claims
from ..evidence.contents import Release, open_evidence
from .bundle import bundle

EXPORT_NAME = "export.json"
EXPORT_FORMAT = "glideslope.diffusers-export/1"
DIFFUSERS_VERSION = "0.42.1"
SHIM = "glideslope.release.exports.shim"
# Class of a network -> module and class of its export.
NETWORK_CLASSES = {UNET: ("modeling_glide", "GlideUNet"), CLIP: ("modeling_clip", "GlideNoisedClip")}
# The published CLIP's tokenizer cleans captions with ftfy; that of another kind does not ask for it.
TOKENIZER_CLASSES: Mapping[Kind, tuple[str, str]] = {kind: ("tokenizer_glide", "GlideTokenizer") for kind in ("own", "gpt2")} | {
    "clip": ("tokenizer_clip", "GlideClipTokenizer")}
SCHEDULER = ("diffusers", "DDPMScheduler")
PIPELINE = ("pipeline", "GlideDiffusionPipeline")
DROPPED = {"CaptionTokenizer": ("train", "save"), "GlidePipeline": ("from_pretrained", "from_release", "from_training")}
OVERRIDES = {"tokenizer_glide": ("clean_for_clip",)}
TERMS = ("LICENSE", "USE_POLICY.md")
# The stock scheduler's spelling of our two noise schedules (arXiv 2006.11239, 2102.09672).
BETAS = {"linear": {"beta_start": 1e-4, "beta_end": 0.02}, "squaredcos_cap_v2": {}}


def export_diffusers(release_dir: Path, out: Path) -> dict[str, Any]:
    """Write an export of a release.

    Args:
        release_dir: a release that `verify` passes, packed or downloaded; its files are copied, never changed.
        out: where the export goes; must not be there, or be empty.

    Returns:
        What was written: components, number of files, root of the list of files.

    Raises:
        ReleaseError: no release, files that are not what its manifest says, or a directory that is not empty
            or lies in a release.
        VerificationError: the release is not let in, see `open_release`.
        StorageError: the directory cannot be written.
    """
    refuse_in_release(out, release_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ReleaseError(f"{out}: is there already and no empty directory; name a new one, nothing is overwritten")
    return write_export(open_whole(release_dir), out)


def open_whole(release_dir: Path) -> Release:
    """Open a release whose files are compared with its manifest.

    Raises:
        ReleaseError: a file is missing, changed or not listed.
        VerificationError: the release is not let in, see `open_release`.
    """
    release = open_evidence(release_dir)
    problems = release.opened.differences()
    if problems:
        raise ReleaseError(f"{release_dir}: is not what its manifest says ({'; '.join(problems[:3])}); pack the release again")
    return release


def write_export(release: Release, out: Path) -> dict[str, Any]:
    """Write an export of a release that was looked at; see `export_diffusers`."""
    files = plan_export(release)
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for path, content in files.items():
            if isinstance(content, bytes):
                write_bytes(partial / path, content)
            else:
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(content, partial / path)
        listing = Manifest.of_directory(partial, exclude=(EXPORT_NAME, INTENT_NAME))
        write_bytes(partial / EXPORT_NAME, listing_text(listing, release.manifest.root, release.manifest.tensors_root))
        sync_tree(partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
        sync_directory(out.parent)
    except OSError as error:
        raise storage_error(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {"components": list(choose_parts(release)), "num_files": len(listing.files), "root": listing.root}


def plan_export(release: Release) -> dict[str, bytes | Path]:
    """Everything that an export of a release holds but export.json, by path: content, or the release's file that is copied.

    Raises:
        ReleaseError: the release's list of components, a tokenizer or a schedule cannot be read.
    """
    parts = choose_parts(release)
    components = choose_classes({name: tokenizer_file(release, name) for name in parts if name in TOKENIZERS}, parts)
    files: dict[str, bytes | Path] = {**copied_files(release, parts), **generated_files(components)}
    for name in schedulers(parts):
        files[f"{name}/scheduler_config.json"] = scheduler_text(_schedule_of(release.path(f"{name}/scheduler_config.json")))
    return files | {"README.md": readme(release, parts).encode()}


def choose_parts(release: Release) -> tuple[str, ...]:
    """The components of an export: all of the release's, and a tokenizer of its own for a noised CLIP that reads the base's tokens.

    So a pipeline that is loaded in part cannot give a noised CLIP another tokenizer than its own without being noticed.

    Raises:
        ReleaseError: the release's list of components cannot be read.
    """
    try:
        held = read_index(release.path(INDEX_NAME))
    except CheckpointError as error:
        raise ReleaseError(f"{error}; pack the release again") from error
    return tuple(name for name in COMPONENTS if name in held or (name == "clip_tokenizer" and "noised_clip" in held))


def tokenizer_file(release: Release, name: str) -> Path:
    """The release's file of a tokenizer of an export."""
    return release.path(f"{name if (release.directory / name).is_dir() else 'tokenizer'}/tokenizer.json")


def schedulers(parts: Collection[str]) -> list[str]:
    """Those of the components that are noise schedules."""
    return [name for name in parts if name in SCHEDULERS]


def choose_classes(tokenizers: Mapping[str, Path], parts: Collection[str]) -> dict[str, tuple[str, str]]:
    """Module and class of each component.

    Args:
        tokenizers: the tokenizer.json of each tokenizer.
        parts: the components.

    Raises:
        ReleaseError: a tokenizer cannot be read.
    """
    chosen: dict[str, tuple[str, str]] = {}
    for name in parts:
        if name in tokenizers:
            try:
                chosen[name] = TOKENIZER_CLASSES[CaptionTokenizer.load(tokenizers[name]).kind]
            except CheckpointError as error:
                raise ReleaseError(f"{error}; pack the release again") from error
        else:
            chosen[name] = NETWORK_CLASSES[NETWORKS[name].class_name] if name in NETWORKS else SCHEDULER
    return chosen


def copied_files(release: Release, parts: Collection[str]) -> dict[str, Path]:
    """Configurations, weights, tokenizers and terms, which are copied as they are: path in the export -> the release's file."""
    copies = {name: release.path(name) for name in TERMS if (release.directory / name).is_file()}
    for name in parts:
        if name in TOKENIZERS:
            copies[f"{name}/tokenizer.json"] = tokenizer_file(release, name)
        elif name in NETWORKS:
            folder = release.directory / name
            copies |= {f"{name}/{path.name}": path for path in sorted(folder.iterdir()) if is_copied(path.name)}
    return copies


def is_copied(name: str) -> bool:
    """Whether a file of a network's folder belongs in an export: its configuration, its weights of any type, their indices."""
    return name == "config.json" or parse_weights_name(name) is not None or name.startswith(f"{STEM}{SUFFIX}.index.")


def generated_files(components: Mapping[str, tuple[str, str]]) -> dict[str, bytes]:
    """The code and the list of components of an export, which depend on nothing but the classes of its components.

    Args:
        components: module and class of each, by its name.

    Returns:
        Path -> content; the same version of glideslope makes the same bytes.

    Raises:
        ReleaseError: our sources cannot be bundled.
    """
    code = {path: text.encode() for path, text in generate_code(components).items()}
    return code | {INDEX_NAME: readable_json(model_index(components))}


def generate_code(components: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The code of an export by its path: self-contained modules, generated from ours.

    Args:
        components: module and class of each, by its name.

    Raises:
        ReleaseError: our sources cannot be bundled.
    """
    header = (f"Generated by glideslope {__version__} from its own sources, for diffusers {DIFFUSERS_VERSION}; do not edit: export.json lists "
              "this file's digest.\n")
    ours = {name: place for name, place in components.items() if place != SCHEDULER}
    texts = {(module, name): bundle(f"{SHIM}.{module}", [name], header, dropped=DROPPED, overrides=OVERRIDES.get(module, ()))
             for module, name in dict.fromkeys([PIPELINE, *ours.values()])}
    return {f"{PIPELINE[0]}.py": texts[PIPELINE]} | {f"{name}/{place[0]}.py": texts[place] for name, place in ours.items()}


def model_index(components: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """What diffusers reads first: the pipeline, and module and class of each component."""
    return {"_class_name": list(PIPELINE), "_diffusers_version": DIFFUSERS_VERSION,
            **{name: list(components.get(name, (None, None))) for name in COMPONENTS}}


def scheduler_text(schedule: NoiseSchedule) -> bytes:
    """A noise schedule as diffusers' own scheduler spells it."""
    betas: Mapping[str, float] = BETAS[schedule.betas]
    return readable_json({"_class_name": "DDPMScheduler", "_diffusers_version": DIFFUSERS_VERSION, "num_train_timesteps": 1000,
                          "beta_schedule": schedule.betas, "variance_type": "learned_range", "clip_sample": True,
                          "prediction_type": schedule.prediction_type, **betas})


def _schedule_of(path: Path) -> NoiseSchedule:
    try:
        return read_schedule(path)
    except CheckpointError as error:
        raise ReleaseError(f"{error}; pack the release again") from error


def listing_text(listing: Manifest, release_root: str, release_tensors_root: str) -> bytes:
    """What export.json holds: which release the export comes from, and every file with its digest."""
    return readable_json({"format": EXPORT_FORMAT, "glideslope": __version__, "diffusers": DIFFUSERS_VERSION, "release_root": release_root,
                          "release_tensors_root": release_tensors_root, "root": listing.root, "manifest": listing.to_json()})


def readme(release: Release, parts: Collection[str]) -> str:
    """The page of an export: what it is, where its evidence lies, how to load it."""
    recipe: Recipe = release.recipe
    warnings = [f"> - {in_code(row['gate'])}, because: {cell(row['reason'])}" for row in unsafe_claims(release)["unsafe.bypasses"]]
    optional = [f"`{name}`" for name in OPTIONAL_NETWORKS if name in parts]
    evaluate = recipe.evaluate
    header = yaml.safe_dump({"license": recipe.release.license, "library_name": "diffusers", "pipeline_tag": "text-to-image"},
                            sort_keys=False).rstrip()
    return "\n".join([
        "---", header, "---", "", f"# {cell(recipe.release.title)}, for diffusers", "",
        *(["> **Warning: the release did not pass every gate.** Its publisher set aside:", *warnings, ""] if warnings else []),
        "A copy of a glideslope release that plain [diffusers](https://github.com/huggingface/diffusers) loads. What was filtered out of "
        "the training data, how sure that is and what remains stands on the release's own card, with its evidence.", "",
        f"- Manifest root of the release: `{release.manifest.root}`", f"- Root of its tensors: `{release.manifest.tensors_root}`",
        f"- `{EXPORT_NAME}` lists every file of this directory with its digest.",
        f"- Beside `base` it holds {', '.join(optional) or 'no network'}; each can be left out in loading, as `{OPTIONAL_NETWORKS[0]}=None`.",
        "", "```python", "from diffusers import DiffusionPipeline", "from PIL import Image", "",
        'pipe = DiffusionPipeline.from_pretrained("DIRECTORY", trust_remote_code=True)',
        f'image = pipe("a red apple", guidance_scale={evaluate.guidance_scale:g}, num_inference_steps={evaluate.num_steps}, seed=0).images[0]',
        *examples(parts), 'image.save("apple.png")', "```", "",
        "In a mask white is drawn anew, and black is kept. A method whose network was left out refuses, and names it.", "",
        "`trust_remote_code=True` runs the Python files in this directory. They are generated from glideslope's sources, import only torch, "
        "diffusers, safetensors, tokenizers, numpy and PIL (and ftfy, where there is the published CLIP's tokenizer), and draw the same "
        "pictures as glideslope from the same seeds. "
        "Without it diffusers refuses. To run no code of a repository, load the release with glideslope instead.", "",
        f"Licence: {cell(recipe.release.license)}, see LICENSE."]) + "\n"


def examples(parts: Collection[str]) -> list[str]:
    """Lines of Python that edit what was drawn, and enlarge it where there is an upsampler."""
    lines = ["options = pipe.draw_options(num_steps=50, seed=1)", 'image = pipe.vary(image, "a green apple", 0.6, options=options).images[0]',
             'mask = Image.open("mask.png")  # as large as the picture',
             'image = pipe.inpaint("a pear", image, mask, options=options).images[0]']
    enlarging = 'image = pipe.upsample(image, "a pear", options=pipe.upsample_options(seed=1)).images[0]'
    return [*lines, *([enlarging] if "upsampler" in parts else [])]
