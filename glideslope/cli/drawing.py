"""Commands that draw with a release, and bring in published checkpoints."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RequestError
from ..store.protected_places import numbered_names
from .arguments import TRUST, JsonOption, SignerOption, ThresholdOption, err, flag, out, signer_rule, tell
from .terminal import TerminalReporter

if TYPE_CHECKING:
    from ..models.drawing.files import DrawRequest
    from ..trust.opening import Trust

GUIDANCE, WEIGHTS = "Guidance", "Which weights"

SourceArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="A release directory, for example runs/openmoji-demo/release, or "
                                               "org/name on the Hub.")]


@dataclass(frozen=True)
class DrawingOptions:
    """How pictures are drawn, and where they go."""

    out_path: Annotated[Path | None, typer.Option(
        "--out", metavar="PATH", show_default="samples.png or edited.png, numbered if that is there",
        help="A new PNG, which holds all pictures; or a new directory for a PNG of each and sheet.png. Nothing "
             "is overwritten.")] = None
    num_images: Annotated[int, typer.Option(help="Pictures of each prompt.")] = 1
    seed: Annotated[int, typer.Option(help="Picture i of all is drawn from seed + i.")] = 0
    num_steps: Annotated[int, typer.Option(help="Denoising steps, 1 to 1000.")] = 50
    sampler: Annotated[str, typer.Option(help="ddpm, ddim, dpm++, dpm++sde or unipc; the last three need 10 to 25 steps.")] = "ddpm"
    upsample: Annotated[bool | None, typer.Option("--upsample/--no-upsample", show_default="where there is one",
                                                   help="Enlarge the pictures with the release's upsampler.")] = None
    previews: Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="Write there what each step expects the picture to be.")] = None
    cut_long_prompts: Annotated[bool, flag("--cut-long-prompts", help="Cut prompts that are longer than the model reads. Without "
                                                   "it they are refused.")] = False
    guidance: Annotated[str | None, typer.Option(
        help="none, cfg (classifier-free), clip or both.", show_default="cfg", rich_help_panel=GUIDANCE)] = None
    guidance_scale: Annotated[float | None, typer.Option(
        help="Of classifier-free guidance; 1 is none.", show_default="3", rich_help_panel=GUIDANCE)] = None
    clip_guidance_scale: Annotated[float | None, typer.Option(
        help="Of guidance by a CLIP; 0 is none.", show_default="3 with clip or both, else 0", rich_help_panel=GUIDANCE)] = None
    guidance_interval: Annotated[tuple[float, float] | None, typer.Option(
        metavar="LOW HIGH", help="Guide between two noise levels only, 0 (the image) to 1 (the noise). Other steps cost half.",
        show_default="0 1", rich_help_panel=GUIDANCE)] = None
    clip: Annotated[str | None, typer.Option(
        metavar="NAME", help="An open_clip model that guides instead of the noised CLIP.", rich_help_panel=GUIDANCE)] = None
    clip_pretrained: Annotated[str | None, typer.Option(
        metavar="TAG", help="Its weights: a tag of open_clip or a file.", rich_help_panel=GUIDANCE)] = None

    def to_request(self, prompts: list[str], weights: "WeightOptions", *, stem: str) -> "DrawRequest":
        """What is to be drawn; without `--out` it goes to a free name with this stem."""
        from ..models.drawing.files import DrawRequest, WeightChoice
        from ..models.drawing.options import DrawOptions, choose_scales

        scales = choose_scales(self.guidance, self.guidance_scale, self.clip_guidance_scale)
        options = DrawOptions(self.num_images, *scales, self.num_steps, self.sampler, self.seed, self.guidance_interval, self.cut_long_prompts)
        return DrawRequest(prompts, self.out_path or free_name(stem), options, self.upsample, self.previews,
                           choose_guide(self.clip, self.clip_pretrained, options), WeightChoice(weights.device, weights.dtype, weights.variant))


@dataclass(frozen=True)
class WeightOptions:
    """Which weights are loaded, in which type, on which device."""

    device: Annotated[str | None, typer.Option(
        help="cpu, cuda, cuda:1, ...", show_default="a GPU where there is one", rich_help_panel=WEIGHTS)] = None
    dtype: Annotated[str | None, typer.Option(
        help="float32, float16 or bfloat16, to which the weights are cast; bfloat16 is the fast one.", show_default="as stored",
        rich_help_panel=WEIGHTS)] = None
    variant: Annotated[str | None, typer.Option(
        help="fp16 or bf16: the release's files of that variant.", show_default="as trained", rich_help_panel=WEIGHTS)] = None
    revision: Annotated[str | None, typer.Option(
        metavar="NAME", help="Branch, tag or commit of a release on the Hub.", rich_help_panel=WEIGHTS)] = None


@dataclass(frozen=True)
class TrustOptions:
    """What a release must show before it is loaded."""

    signer: SignerOption = None
    threshold: ThresholdOption = None
    lock: Annotated[Path | None, typer.Option(metavar="FILE", rich_help_panel=TRUST, help=(
        "Pins repository, commit, manifest and signer. The file is written when it is missing, else enforced."))] = None
    unsafe_stale_status: Annotated[bool, flag("--unsafe-stale-status", panel=TRUST, help=(
        "Load although the repository's status is missing, expired or out of reach. Nothing then shows that the release was not "
        "withdrawn."))] = False

    def to_trust(self) -> "Trust":
        """As the loader takes it."""
        from ..trust.opening import Trust

        return Trust(signer=signer_rule(self.signer, self.threshold), lock=self.lock, unsafe_stale_status=self.unsafe_stale_status)


def sample(release: SourceArgument,
           drawing: DrawingOptions, weights: WeightOptions, trust: TrustOptions,
           prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to draw; one or several.")] = None,
           prompt_file: Annotated[Path | None, typer.Option(
               metavar="FILE", help="More prompts, UTF-8, one per line; blank lines are skipped.")] = None) -> None:
    """Draw pictures from captions."""
    from ..models.drawing.files import draw_to_files, read_prompts

    if not prompts and prompt_file is None:
        raise typer.BadParameter("give a prompt, or a file of them with --prompt-file", param_hint="PROMPT")
    listed, blank = ([], []) if prompt_file is None else read_prompts(prompt_file)
    request, trusted = drawing.to_request([*(prompts or []), *listed], weights, stem="samples"), trust.to_trust()
    with TerminalReporter(err).stage("sample") as progress:
        request.check()
        written = draw_to_files(open_told(release, weights.revision, trusted), request, progress=progress)
    if blank:
        out.print(f"{prompt_file}: blank lines skipped: {', '.join(map(str, blank))}", markup=False, highlight=False)
    tell_written(written)


def edit(release: SourceArgument,
         prompt: Annotated[str, typer.Option(help="What the result shall show.")],
         image: Annotated[Path, typer.Option(metavar="FILE", help="The picture to edit; its middle square is used.")],
         drawing: DrawingOptions, weights: WeightOptions, trust: TrustOptions,
         mask: Annotated[Path | None, typer.Option(
             metavar="MASK.png", help="Where to draw, as large as the picture: white is drawn anew, black is kept. "
                                      "Without one the whole picture is varied.")] = None,
         strength: Annotated[float | None, typer.Option(
             help="Without a mask: how much to change, above 0 (nearly the picture) to 1 (drawn anew).", show_default="0.6")] = None) -> None:
    """Edit a picture: draw inside a mask, or vary the whole picture."""
    from ..models.drawing.edit_files import Edit, edit_to_files

    request, trusted = drawing.to_request([prompt], weights, stem="edited"), trust.to_trust()
    with TerminalReporter(err).stage("edit") as progress:
        asked = Edit(request, image, mask, strength)
        asked.check()
        written = edit_to_files(open_told(release, weights.revision, trusted), asked, progress=progress)
    tell_written(written)


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
    """Turn OpenAI's published GLIDE checkpoints into a release.

    Nothing in the files is run. Files of the same shape from elsewhere are read too.
    """
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


def open_told(release: str, revision: str | None, trust: "Trust") -> Any:
    """Open a release, and say on the terminal which one it is: where from, its root, who signed it."""
    from ..recipe.components import INDEX_NAME
    from ..trust.opening import open_release

    found = open_release(release, trust, revision=revision)
    if (found.snapshot.path / INDEX_NAME).exists():  # else this is no release, and the loader says so
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
