"""Commands that draw with a release, and bring in published checkpoints."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RequestError
from ..store.protected_places import numbered_names
from .arguments import RELEASES, JsonOption, ThresholdOption, err, out, signer_rule, tell
from .terminal import TerminalReporter

if TYPE_CHECKING:
    from ..models.loading.opening import Trust

# Options that drawing and editing share.
SourceArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="A release directory, for example runs/openmoji-demo/release, or "
                                               "org/name on the Hub.")]
RevisionOption = Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a release on the Hub.")]
SignerOption = Annotated[list[str] | None, typer.Option(metavar="KEY", help="Key id, or file of the public key, of who must have signed the "
                                                        "release. May be given several times.")]
LockOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Pins repository, commit, manifest and signer: written when it is "
                                                 "not there, else enforced.")]
StaleOption = Annotated[bool, typer.Option("--unsafe-stale-status", help="Load though the repository's status is missing or expired, cannot "
                                           "be looked up or does not count: nothing then shows that the release was not withdrawn.")]
OutOption = Annotated[Path | None, typer.Option(
    "--out", metavar="FILE.png|DIRECTORY", show_default="samples.png or edited.png, numbered if that is there",
    help="One new PNG, a sheet if there are several pictures; or a new directory for a PNG of each and sheet.png. Nothing is overwritten.")]
StepsOption = Annotated[int, typer.Option("--steps", help="Denoising steps, 1 to 1000.")]
SamplerOption = Annotated[str, typer.Option(help="ddpm, ddim, dpm++, dpm++sde or unipc; the last three need 10 to 25 steps.")]
GuidanceOption = Annotated[str | None, typer.Option(help="none, cfg (classifier-free), clip or both.", show_default="cfg")]
GuidanceScaleOption = Annotated[float | None, typer.Option(help="Of classifier-free guidance; 1 is none.", show_default="3")]
ClipScaleOption = Annotated[float | None, typer.Option(help="Of guidance by a CLIP; 0 is none.", show_default="3 with clip or both, else 0")]
IntervalOption = Annotated[tuple[float, float] | None, typer.Option(
    metavar="LOW HIGH", help="Guide between two noise levels only, 0 (the image) to 1 (the noise); elsewhere a step costs half.",
    show_default="0 1")]
ClipOption = Annotated[str | None, typer.Option(metavar="NAME", help="An open_clip model that guides instead of the noised CLIP.")]
ClipPretrainedOption = Annotated[str | None, typer.Option(metavar="TAG", help="Its weights: a tag of open_clip or a file.")]
SeedOption = Annotated[int, typer.Option(help="Picture i of all is drawn from seed + i.")]
UpsampleOption = Annotated[bool, typer.Option("--upsample", help="Enlarge the pictures with the release's upsampler.")]
PreviewsOption = Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="Write what is foreseen after each step there.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="a GPU where there is one")]
DtypeOption = Annotated[str | None, typer.Option(
    help="float32, float16 or bfloat16, to which the weights are cast; bfloat16 is the fast one.", show_default="as stored")]
VariantOption = Annotated[str | None, typer.Option(help="fp16 or bf16: the release's files of that variant.", show_default="as trained")]
CutOption = Annotated[bool, typer.Option("--cut-long-prompts", help="Cut prompts that are longer than the model reads instead of refusing "
                                         "them.")]

app = typer.Typer()


@app.command(rich_help_panel=RELEASES)
def sample(release: SourceArgument,  # noqa: PLR0913, PLR0917 (a command's parameters are its options)
           prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to draw; one or several.")] = None,
           prompt_file: Annotated[Path | None, typer.Option(
               metavar="FILE", help="More prompts, UTF-8, one per line; blank lines are skipped.")] = None,
           out_path: OutOption = None,
           num_images: Annotated[int, typer.Option(help="Pictures of each prompt.")] = 1, num_steps: StepsOption = 50,
           sampler: SamplerOption = "ddpm", guidance: GuidanceOption = None, guidance_scale: GuidanceScaleOption = None,
           clip_guidance_scale: ClipScaleOption = None, guidance_interval: IntervalOption = None, clip: ClipOption = None,
           clip_pretrained: ClipPretrainedOption = None, seed: SeedOption = 0, upsample: UpsampleOption = False,
           previews: PreviewsOption = None, cut_long_prompts: CutOption = False, device: DeviceOption = None, dtype: DtypeOption = None,
           variant: VariantOption = None, revision: RevisionOption = None, signer: SignerOption = None, threshold: ThresholdOption = None,
           lock: LockOption = None, unsafe_stale_status: StaleOption = False) -> None:
    """Draw pictures from captions with a verified release."""
    from ..models.drawing.files import DrawRequest, WeightChoice, draw_to_files, read_prompts
    from ..models.drawing.options import DrawOptions, choose_scales

    if not prompts and prompt_file is None:
        raise typer.BadParameter("give a prompt, or a file of them with --prompt-file", param_hint="PROMPT")
    scales = choose_scales(guidance, guidance_scale, clip_guidance_scale)
    options = DrawOptions(num_images, *scales, num_steps, sampler, seed, guidance_interval, cut_long_prompts)
    listed, blank = ([], []) if prompt_file is None else read_prompts(prompt_file)
    request = DrawRequest([*(prompts or []), *listed], out_path or free_name("samples"), options, upsample, previews,
                          choose_guide(clip, clip_pretrained, options), WeightChoice(device, dtype, variant))
    trust = trust_of(signer, threshold, lock, unsafe_stale_status=unsafe_stale_status)
    with TerminalReporter(err).stage("sample") as progress:
        request.check()
        written = draw_to_files(open_told(release, revision, trust), request, progress=progress)
    if blank:
        out.print(f"{prompt_file}: blank lines skipped: {', '.join(map(str, blank))}", markup=False, highlight=False)
    tell_written(written)


@app.command("import-openai", rich_help_panel=RELEASES)
def import_openai(directory: Annotated[Path, typer.Argument(help="Holds the published base.pt, upsample.pt, base_inpaint.pt, "
                                                                 "upsample_inpaint.pt, clip_image_enc.pt and clip_text_enc.pt.")],
                  release: Annotated[Path, typer.Option("--out", metavar="RELEASE", help="The release directory to write; must not exist.")],
                  components: Annotated[str | None, typer.Option(help="Only these, with commas: base, upsampler, base_inpaint, "
                                                                      "upsampler_inpaint, noised_clip.")] = None,
                  gpt2_tokenizer: Annotated[str | None, typer.Option(metavar="PATH", help="GPT-2's encoder.json and vocab.bpe, or "
                                                                     "tokenizer.json: a path, or hf-hub:REPOSITORY.")] = None,
                  clip_tokenizer: Annotated[str | None, typer.Option(metavar="PATH", help="CLIP's merges or tokenizer.json, likewise.")] = None,
                  sha256: Annotated[Path | None, typer.Option(metavar="FILE", help="Digests that the files must have, as `sha256sum` writes. "
                                                              "Without it the card says that the origin is not shown.")] = None,
                  as_json: JsonOption = False) -> None:
    """Turn checkpoints shaped like OpenAI's published GLIDE into a release directory, without running anything in them."""
    from ..models.published.importing import ImportOptions, import_published, read_digests

    chosen = None if components is None else [name.strip() for name in components.split(",")]
    options = ImportOptions(chosen, gpt2_tokenizer, clip_tokenizer, None if sha256 is None else read_digests(sha256))
    with TerminalReporter(err).stage("import") as progress:
        report = import_published(directory, release, options, progress=progress)
    if as_json:
        tell({"release": str(release), **report}, as_json=True)
        return
    for name, entry in report["sources"].items():
        out.print(f"{name}: sha256 {entry['sha256']}", markup=False, highlight=False)
    out.print(f"wrote {release}: {', '.join(report['components'])}; every tensor equals its source bit for bit", markup=False, highlight=False)


@app.command(rich_help_panel=RELEASES)
def edit(release: SourceArgument,  # noqa: PLR0913, PLR0917 (a command's parameters are its options)
         prompt: Annotated[str, typer.Option(help="What the result shall show.")],
         image: Annotated[Path, typer.Option(metavar="FILE", help="The picture to edit; its middle square is used.")],
         mask: Annotated[Path | None, typer.Option(
             metavar="MASK.png", help="Where to draw, as large as the picture: white is drawn anew, black is kept. "
                                      "Without one the whole picture is varied.")] = None,
         strength: Annotated[float | None, typer.Option(
             help="Without a mask: how much to change, above 0 (nearly the picture) to 1 (drawn anew).", show_default="0.6")] = None,
         out_path: OutOption = None, num_images: Annotated[int, typer.Option(help="How many results.")] = 1,
         num_steps: StepsOption = 50, sampler: SamplerOption = "ddpm", guidance: GuidanceOption = None,
         guidance_scale: GuidanceScaleOption = None, clip_guidance_scale: ClipScaleOption = None, guidance_interval: IntervalOption = None,
         clip: ClipOption = None, clip_pretrained: ClipPretrainedOption = None, seed: SeedOption = 0, upsample: UpsampleOption = False,
         previews: PreviewsOption = None, cut_long_prompts: CutOption = False, device: DeviceOption = None, dtype: DtypeOption = None,
         variant: VariantOption = None, revision: RevisionOption = None, signer: SignerOption = None, threshold: ThresholdOption = None,
         lock: LockOption = None, unsafe_stale_status: StaleOption = False) -> None:
    """Edit a picture: inpainting with a mask, image-to-image without."""
    from ..models.drawing.edit_files import Edit, edit_to_files
    from ..models.drawing.files import DrawRequest, WeightChoice
    from ..models.drawing.options import DrawOptions, choose_scales

    scales = choose_scales(guidance, guidance_scale, clip_guidance_scale)
    options = DrawOptions(num_images, *scales, num_steps, sampler, seed, guidance_interval, cut_long_prompts)
    request = DrawRequest([prompt], out_path or free_name("edited"), options, upsample, previews,
                          choose_guide(clip, clip_pretrained, options), WeightChoice(device, dtype, variant))
    trust = trust_of(signer, threshold, lock, unsafe_stale_status=unsafe_stale_status)
    with TerminalReporter(err).stage("edit") as progress:
        asked = Edit(request, image, mask, strength)
        asked.check()
        written = edit_to_files(open_told(release, revision, trust), asked, progress=progress)
    tell_written(written)


def trust_of(signer: list[str] | None, threshold: int | None, lock: Path | None, *, unsafe_stale_status: bool) -> "Trust":
    """What a release must show before it is loaded."""
    from ..models.loading.opening import Trust

    return Trust(signer=signer_rule(signer, threshold, option="--signer"), lock=lock, unsafe_stale_status=unsafe_stale_status)


def open_told(release: str, revision: str | None, trust: "Trust") -> Any:
    """Open a release, and say on the terminal which one it is: where from, its root, who signed it."""
    from ..models.loading.opening import find_release

    found = find_release(release, revision, trust=trust)
    err.print(found.describe(), markup=False, highlight=False)
    return found


def tell_written(written: list[Path]) -> None:
    """Say which pictures were written: one file, or files and a sheet."""
    files = f"{len(written) - 1} pictures and " if len(written) > 1 else ""
    out.print(f"wrote {files}{written[-1]}", markup=False, highlight=False)


def free_name(stem: str) -> Path:
    """A PNG in the working directory that is not there yet: samples.png, samples-2.png, ..."""
    return next(path for path in numbered_names(Path(f"{stem}.png")) if not os.path.lexists(path))


def choose_guide(name: str | None, pretrained: str | None, options: Any) -> Any:
    """An ordinary CLIP that shall guide, or none; it is loaded, or fetched, only when all else was checked."""
    if name is None:
        if pretrained is not None:
            raise RequestError(f"--clip-pretrained is {pretrained!r}, but no model is named; name one with --clip")
        return None
    if not options.clip_guidance_scale:
        raise RequestError(f"--clip is {name!r}, but nothing guides with it; add --guidance clip or both")
    from ..models.drawing.files import GuidingClip

    def load(device: Any) -> Any:
        from ..clip.model import load_clip
        from ..recipe.filters import ClipConfig

        return load_clip(ClipConfig(model=name, pretrained=pretrained, batch_size=1), device=str(device))

    return GuidingClip(name, pretrained, load)
