"""The command line. A command parses, calls one library function, prints; errors of ours become one line and exit code 1."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from . import __version__
from .errors import GlideslopeError, RequestError
from .recipe import Engine, Run, Silent, find_recipe, open_run
from .terminal import TerminalReporter, summary_table

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False,
                  help="Curate image-text data, train a small GLIDE and a noised CLIP on what is left, and pack a release whose "
                       "every claim can be recomputed.\n\nStart with `glideslope demo`, or write a recipe with `glideslope init` and "
                       "run it with `glideslope run`. Every stage resumes where it stopped and is skipped when nothing changed.")
STAGES, RELEASES = "Stages of a run", "Releases"

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a ready-made one: openmoji-demo, openmoji.")]
RunsOption = Annotated[Path, typer.Option("--runs-dir", help="Where runs live; each has a directory of its recipe's name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]
EngineOption = Annotated[Literal["local", "ray"], typer.Option(
    "--engine", help="Where images are embedded and scored: this machine, or a Ray cluster (RAY_ADDRESS, else one started here).")]
WorkersOption = Annotated[int | None, typer.Option(
    "--workers", min=1, help="Worker processes; without it one, or with Ray one per GPU or else per CPU. The result is the same.")]
ReleaseArgument = Annotated[Path, typer.Argument(metavar="RELEASE", help="A release directory, for example runs/openmoji-demo/release.")]
PicturesOption = Annotated[Literal["veiled", "clear", "blurred", "none"], typer.Option(
    help="veiled: what the filters look for is blurred until the reader asks; clear: all is shown; blurred: nothing can be made out; "
         "none: no pictures.")]
RUNS = Path("runs")

# Options that drawing and editing share.
OutOption = Annotated[Path, typer.Option("--out", metavar="FILE.png|DIRECTORY", help="One PNG, a sheet if there are several pictures; or a new "
                                         "directory for a PNG of each and sheet.png.")]
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
CutOption = Annotated[bool, typer.Option("--cut-long-prompts", help="Cut prompts that are longer than the model reads instead of refusing "
                                         "them.")]

out, err = Console(soft_wrap=True, emoji=False), Console(stderr=True, soft_wrap=True, emoji=False)


def main() -> None:
    """Entry point of the `glideslope` command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app()
    except GlideslopeError as error:
        err.print(Text.assemble(("glideslope:", "bold red"), " " + " ".join(str(error).splitlines())))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        err.print("glideslope: stopped; run the same command again to go on where it was")
        raise SystemExit(130) from None


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def settings(
        verbose: Annotated[bool, typer.Option("--verbose", help="Also say which stages are skipped, and why others run again.")] = False,
        version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Set what holds for every command."""
    logging.getLogger("glideslope").setLevel(logging.INFO if verbose else logging.WARNING)


def tell(value: dict[str, Any], *, as_json: bool) -> None:
    """Print a result as `key: value` lines or as JSON."""
    if as_json:
        sys.stdout.write(json.dumps(value, sort_keys=True, ensure_ascii=False) + "\n")
        return
    for key, item in value.items():
        text = ", ".join(f"{name} {figure}" for name, figure in item.items()) if isinstance(item, dict) else item
        out.print(f"{key}: {text}", markup=False, highlight=False)


@app.command(rich_help_panel=STAGES)
def init(path: Annotated[Path, typer.Argument(help="The recipe file to write.")] = Path("recipe.yaml"),
         images: Annotated[str | None, typer.Option("--images", metavar="FOLDER",
                                                    help="A folder of captioned images to start from.")] = None) -> None:
    """Write a recipe with every key and what it means, to be edited."""
    from .starter import write_starter

    write_starter(path, images)
    out.print(f"wrote {path}; edit it, then: glideslope run {path}", markup=False, highlight=False)


@app.command(rich_help_panel=STAGES)
def index(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, engine: EngineOption = "local", workers: WorkersOption = None,
          part: Annotated[int | None, typer.Option(
              "--part", min=0, help="Embed only every N-th shard, from this one (0 to N - 1), for jobs that share the work; "
                                    "the same command without it ends the stage.")] = None,
          num_parts: Annotated[int | None, typer.Option("--num-parts", metavar="N", min=1, help="How many jobs there are.")] = None,
          as_json: JsonOption = False) -> None:
    """Read every input and embed it with CLIP; bad inputs become rows with their reason."""
    if (part is None) != (num_parts is None):
        raise typer.BadParameter("--part and --num-parts go together")
    with opened(recipe, runs_dir, Engine(engine, workers), as_json=as_json, is_part=part is not None) as run:
        if part is not None and num_parts is not None:
            tell({f"part {part} of {num_parts}": run.index_part(part, num_parts)}, as_json=as_json)
            return
        records = run.index()
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def label(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,
          import_file: Annotated[Path | None, typer.Option(
              "--import", metavar="FILE.csv",
              help="Labels to append: columns key, category, label (1 counts, 0 does not, empty: ambiguous); if wanted who, how, group:NAME.",
          )] = None) -> None:
    """Append labels to the run's store and give each its role by hash of the concept."""
    with opened(recipe, runs_dir, as_json=as_json) as run:
        record = run.label(import_file)
    tell({record.stage: dict(record.summary)}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def fit(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, engine: EngineOption = "local", workers: WorkersOption = None,
        as_json: JsonOption = False) -> None:
    """Fit one filter per category, set its threshold, and measure it on labels it never saw."""
    with opened(recipe, runs_dir, Engine(engine, workers), as_json=as_json) as run:
        records = run.fit()
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def curate(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Decide on every input, write the ledger, and copy what is kept byte for byte."""
    with opened(recipe, runs_dir, as_json=as_json) as run:
        record = run.curate()
    tell({record.stage: dict(record.summary)}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def audit(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,  # noqa: PLR0913, PLR0917 (its options)
          category: Annotated[str | None, typer.Option(metavar="NAME", help="What to audit; needed where the recipe has several.")] = None,
          claim: Annotated[float | None, typer.Option(help="Draw a sample to show that at most this share of the kept images shows it.",
                                                      show_default="the recipe's max_leak_rate, or 0.001")] = None,
          num: Annotated[int | None, typer.Option(help="Images to draw; more than were drawn before extends the sample.",
                                                  show_default="as many as show the claim when none is positive")] = None,
          confidence: Annotated[float, typer.Option(help="Of the statement.")] = 0.95,
          design: Annotated[str, typer.Option(help="simple, or stratified: more of the images with high scores.")] = "simple",
          fixed: Annotated[bool, typer.Option("--fixed", help="Fix the number of labels: fewer are needed, but all of them.")] = False,
          seed: Annotated[str | None, typer.Option(metavar="TEXT", help="What the sample is drawn from, such as dice thrown in public.",
                                                   show_default="random numbers of the operating system")] = None,
          seed_from_os: Annotated[bool, typer.Option("--seed-from-os", help="Draw from random numbers of the operating system.")] = False,
          again: Annotated[bool, typer.Option("--again", help="Draw a second sample beside the first; both have to show the claim.")] = False,
          blur: Annotated[bool, typer.Option("--blur", help="Blur the pictures on the contact sheets.")] = False,
          import_file: Annotated[Path | None, typer.Option("--import", metavar="FILE.csv", help="The filled-in sample.csv.")] = None,
          who: Annotated[str, typer.Option(metavar="NAME", help="Who gave the imported labels, where the file does not say.")] = "") -> None:
    """Show with labels how little of a category is left: plan, draw a sample that anybody can redraw, import labels, report.

    Without options it says how many labels show which claims, or how the audits stand.
    """
    from .data_filter.audit_population import AuditRequest

    if seed is not None and seed_from_os:
        raise typer.BadParameter("give either --seed or --seed-from-os", param_hint="--seed")
    request = AuditRequest(category=category, claim=claim, num=num, seed=seed, confidence=confidence, design=design, fixed=fixed,
                           draw=seed_from_os, again=again, blur=blur)
    with opened(recipe, runs_dir, as_json=as_json) as run:
        report = run.audit(request, import_file=import_file, who=who)
    if as_json:
        tell(report.to_json(), as_json=True)
    else:
        out.print(report.describe(), markup=False, highlight=False)


@app.command(rich_help_panel=STAGES)
def mutate(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,
           num_positives: Annotated[int, typer.Option(min=1, help="Held-out positives to plant in each shape.")] = 100,
           num_others: Annotated[int, typer.Option(min=1, help="Other images to change in the same ways, for comparison.")] = 40) -> None:
    """Plant known positives cropped, tiny in a scene, turned, in a collage, as a sticker: how many does the filter still find?"""
    with opened(recipe, runs_dir, as_json=as_json) as opened_run:
        records = opened_run.mutate(num_positives=num_positives, num_others=num_others)
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def report(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False,
           out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="Where to write it.",
                                                         show_default="report.html in the run's directory")] = None,
           pictures: PicturesOption = "veiled") -> None:
    """Write one HTML page that says what the filters did and how sure that is: figures, pictures, groups, captions, audits."""
    with opened(recipe, runs_dir, as_json=as_json) as opened_run:
        written = opened_run.report(out_file, pictures=pictures)
        path = out_file or opened_run.directory / "report.html"
    tell({"report": str(path), **(written.figures if as_json else {"size": f"{path.stat().st_size / 1e6:.1f} MB"})}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def diff(run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run's directory, for example runs/first.")],
         run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The run to compare with it.")],
         out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write .csv (the images that enter or leave), "
                                                       ".json (everything) or .html (a page with pictures).")] = None,
         pictures: PicturesOption = "veiled", as_json: JsonOption = False) -> None:
    """Say which images enter and which leave from one run to another, why, and which groups that concerns; nothing is scored again."""
    from .data_filter.diff_report import compare, describe_difference

    with (Silent() if as_json else TerminalReporter(err)).stage("diff") as progress:
        difference = compare(run_a, run_b, out_file, pictures=pictures, progress=progress)
    if as_json:
        return tell(difference.to_json(), as_json=True)
    tell(describe_difference(difference), as_json=False)
    if out_file is not None:
        out.print(f"wrote {out_file}", markup=False, highlight=False)


@app.command(rich_help_panel=STAGES)
def train(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Train the base model and the noised CLIP on the curated set."""
    with opened(recipe, runs_dir, as_json=as_json) as run:
        records = run.train()
    tell({record.stage: dict(record.summary) for record in records}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def evaluate(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Draw from held-back captions and count how often the picture fits its own caption better than a random one."""
    with opened(recipe, runs_dir, as_json=as_json) as run:
        record = run.evaluate()
    tell({record.stage: dict(record.summary)}, as_json=as_json)


@app.command(rich_help_panel=STAGES)
def run(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, engine: EngineOption = "local", workers: WorkersOption = None,
        as_json: JsonOption = False) -> None:
    """Do every stage that is not done yet, then pack, check and verify the release."""
    reporter = TerminalReporter(err)
    with open_run(find_recipe(recipe), runs_dir, reporter, engine=Engine(engine, workers)) as opened_run:
        opened_run.all()
    claims = read_claims(opened_run)
    if as_json:
        tell({"release": str(opened_run.directory / "release"), "claims": claims, "seconds": reporter.seconds}, as_json=True)
        return
    out.print(summary_table(claims, reporter.seconds))
    release = opened_run.directory / "release"
    out.print(f"\nThe release is {release}: its card is {release / 'README.md'}, its pictures are in {release / 'figures'}.\n"
              f"Draw with it:   glideslope sample {release} \"red apple\" --num-images 8 --out grid.png\n"
              f"Check it again: glideslope verify {release}", markup=False, highlight=False)


@app.command()
def demo(runs_dir: RunsOption = RUNS) -> None:
    """The whole job on 4,460 real drawings (OpenMoji), in about a quarter of an hour on two cores."""
    run("openmoji-demo", runs_dir, as_json=False)


@app.command(rich_help_panel=RELEASES)
def pack(recipe: RecipeArgument, runs_dir: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """Write the release directory of a finished run: weights, card, evidence, manifest."""
    with opened(recipe, runs_dir, as_json=as_json) as opened_run:
        record = opened_run.pack()
    tell({"release": str(opened_run.directory / "release"), **record.summary}, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def check(release: ReleaseArgument, as_json: JsonOption = False) -> None:
    """Run every gate on a release: all failures are listed, and one is enough to refuse it."""
    from .release.gates import check as run_gates

    passed = run_gates(release)
    tell({"release": str(release), "gates": passed if as_json else "passed: " + ", ".join(passed)}, as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def verify(release: ReleaseArgument, as_json: JsonOption = False) -> None:
    """Recompute every digest and every number on the card, offline, and name what differs."""
    from .release.verify import verify as verify_release

    report = verify_release(release)
    tell(report.to_json(), as_json=as_json)


@app.command(rich_help_panel=RELEASES)
def sample(release: ReleaseArgument,  # noqa: PLR0913, PLR0917 (a command's parameters are its options)
           prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to draw; one or several.")] = None,
           prompt_file: Annotated[Path | None, typer.Option(
               metavar="FILE", help="More prompts, UTF-8, one per line; blank lines are skipped.")] = None,
           out_path: OutOption = Path("samples.png"),
           num_images: Annotated[int, typer.Option(help="Pictures of each prompt.")] = 1, num_steps: StepsOption = 50,
           sampler: SamplerOption = "ddpm", guidance: GuidanceOption = None, guidance_scale: GuidanceScaleOption = None,
           clip_guidance_scale: ClipScaleOption = None, guidance_interval: IntervalOption = None, clip: ClipOption = None,
           clip_pretrained: ClipPretrainedOption = None, seed: SeedOption = 0, upsample: UpsampleOption = False,
           previews: PreviewsOption = None, cut_long_prompts: CutOption = False) -> None:
    """Draw pictures from captions with a verified release."""
    from .models.drawing import DrawRequest, draw_to_files, read_prompts
    from .models.options import DrawOptions, choose_scales

    if not prompts and prompt_file is None:
        raise typer.BadParameter("give a prompt, or a file of them with --prompt-file", param_hint="PROMPT")
    scales = choose_scales(guidance, guidance_scale, clip_guidance_scale)
    options = DrawOptions(num_images, *scales, num_steps, sampler, seed, guidance_interval, cut_long_prompts)
    listed, blank = ([], []) if prompt_file is None else read_prompts(prompt_file)
    request = DrawRequest([*(prompts or []), *listed], out_path, options, upsample, previews, load_guide(clip, clip_pretrained, options))
    with TerminalReporter(err).stage("sample") as progress:
        written = draw_to_files(release, request, progress=progress)
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
                  as_json: JsonOption = False) -> None:
    """Turn OpenAI's published GLIDE checkpoints into a release directory, without running anything in them."""
    from .models.importing import ImportOptions, import_published

    chosen = None if components is None else [name.strip() for name in components.split(",")]
    with TerminalReporter(err).stage("import") as progress:
        report = import_published(directory, release, ImportOptions(chosen, gpt2_tokenizer, clip_tokenizer), progress=progress)
    if as_json:
        tell({"release": str(release), **report}, as_json=True)
        return
    for name, entry in report["sources"].items():
        out.print(f"{name}: sha256 {entry['sha256']}", markup=False, highlight=False)
    out.print(f"wrote {release}: {', '.join(report['components'])}; every tensor equals its source bit for bit", markup=False, highlight=False)


@app.command(rich_help_panel=RELEASES)
def edit(release: ReleaseArgument,  # noqa: PLR0913, PLR0917 (a command's parameters are its options)
         prompt: Annotated[str, typer.Option(help="What the result shall show.")],
         image: Annotated[Path, typer.Option(metavar="FILE", help="The picture to edit; its middle square is used.")],
         mask: Annotated[Path | None, typer.Option(
             metavar="MASK.png", help="Where to draw, as large as the picture: white is drawn anew, black is kept. "
                                      "Without one the whole picture is varied.")] = None,
         strength: Annotated[float | None, typer.Option(
             help="Without a mask: how much to change, above 0 (nearly the picture) to 1 (drawn anew).", show_default="0.6")] = None,
         out_path: OutOption = Path("edited.png"), num_images: Annotated[int, typer.Option(help="How many results.")] = 1,
         num_steps: StepsOption = 50, sampler: SamplerOption = "ddpm", guidance: GuidanceOption = None,
         guidance_scale: GuidanceScaleOption = None, clip_guidance_scale: ClipScaleOption = None, guidance_interval: IntervalOption = None,
         clip: ClipOption = None, clip_pretrained: ClipPretrainedOption = None, seed: SeedOption = 0, upsample: UpsampleOption = False,
         previews: PreviewsOption = None, cut_long_prompts: CutOption = False) -> None:
    """Edit a picture: inpainting with a mask, image-to-image without."""
    from .models.drawing import DrawRequest
    from .models.edit_file import Edit, edit_to_files
    from .models.options import DrawOptions, choose_scales

    scales = choose_scales(guidance, guidance_scale, clip_guidance_scale)
    options = DrawOptions(num_images, *scales, num_steps, sampler, seed, guidance_interval, cut_long_prompts)
    request = DrawRequest([prompt], out_path, options, upsample, previews, load_guide(clip, clip_pretrained, options))
    with TerminalReporter(err).stage("edit") as progress:
        written = edit_to_files(release, Edit(request, image, mask, strength), progress=progress)
    tell_written(written)


def tell_written(written: list[Path]) -> None:
    """Say which pictures were written: one file, or files and a sheet."""
    files = f"{len(written) - 1} pictures and " if len(written) > 1 else ""
    out.print(f"wrote {files}{written[-1]}", markup=False, highlight=False)


def load_guide(name: str | None, pretrained: str | None, options: Any) -> Any:
    """An ordinary CLIP that shall guide, or none."""
    if name is None:
        if pretrained is not None:
            raise RequestError(f"--clip-pretrained is {pretrained!r}, but no model is named; name one with --clip")
        return None
    if not options.clip_guidance_scale:
        raise RequestError(f"--clip is {name!r}, but nothing guides with it; add --guidance clip or both")
    from .config import ClipConfig
    from .data_filter.clip import load_clip

    return load_clip(ClipConfig(model=name, pretrained=pretrained))


def opened(recipe: str, runs_dir: Path, engine: Engine | None = None, *, as_json: bool, is_part: bool = False) -> Any:
    """A run opened with progress on the terminal's error stream."""
    return open_run(find_recipe(recipe), runs_dir, None if as_json else TerminalReporter(err), engine=engine, is_part=is_part)


def read_claims(finished: Run) -> dict[str, Any]:
    """The claims of a packed run."""
    from .manifest import read_json

    return dict(read_json(finished.directory / "release" / "evidence" / "claims.json"))
