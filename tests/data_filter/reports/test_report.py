import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from glideslope.data_filter.deciding.curate_stage import curate
from glideslope.data_filter.deciding.ledger import open_ledger
from glideslope.data_filter.index import embed as index
from glideslope.data_filter.index.parquet import read_table
from glideslope.data_filter.labels.concepts import role_of
from glideslope.data_filter.labels.csv_files import read_label_csv
from glideslope.data_filter.labels.stage import import_labels
from glideslope.data_filter.mutations.stage import Plan, mutate
from glideslope.data_filter.reports.diff import Difference
from glideslope.data_filter.reports.diff_page import choose_changes, render_difference
from glideslope.data_filter.reports.diff_report import compare, describe_difference
from glideslope.data_filter.reports.galleries import sample_rows, scan_scores
from glideslope.data_filter.reports.page import signed_percent, times
from glideslope.data_filter.reports.report import Report, gather_report, write_report
from glideslope.data_filter.sources.folder import FolderSource
from glideslope.errors import StageError
from glideslope.recipe.components import BaseTraining, NoisedClipTraining
from glideslope.recipe.filters import ClipConfig, CurateConfig, LabelsConfig, ReportConfig, WordGroup
from glideslope.recipe.load import dump_recipe
from glideslope.recipe.policy import CategoryDemands, KeptShareDemand, Policy, RecallDemand, load_policy
from glideslope.recipe.recipe import Recipe
from glideslope.store.vocabulary import Cause, Reason

from ..conftest import TinyClip, World, category, fill_folder


def policy_of(recall: float) -> Policy:
    """The built-in policy with demands of red."""
    red = CategoryDemands(recall=RecallDemand(at_least=recall, bound=0.0), kept_share=KeptShareDemand(at_least=0.123))
    return load_policy(None).model_copy(update={"categories": {"red": red}})


POLICY = policy_of(0.456)
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}'


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def recipe_of(world: World, *groups: WordGroup) -> Recipe:
    return Recipe(name="small-run", source=FolderSource(path=str(world.root / "images")), categories=(category(),),
                  base=BaseTraining(num_images=1, learning_rate=1e-3), noised_clip=NoisedClipTraining(num_images=1, learning_rate=1e-3),
                  report=ReportConfig(word_groups=groups))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One curated run for all tests, which leave its stages as they are."""
    index.load_clip_once.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "load_clip", lambda config, device="cpu": TinyClip())
        world = World(tmp_path_factory.mktemp("run"))
        fill_folder(world.root / "images", 60)
        world.index()
        world.label()
        world.fit()
        world.curate()
        yield world
    index.load_clip_once.cache_clear()


@pytest.fixture
def curated(shared: World, tmp_path: Path) -> World:
    """A copy of the run."""
    shutil.copytree(shared.root, tmp_path / "run")
    return World(tmp_path / "run")


def write(world: World, *, policy: Policy = POLICY, **options: str) -> tuple[Report, Page, str]:
    path = world.root / "report.html"
    report = write_report(recipe_of(world), world.layout, world.source, path, policy=policy, **options)  # type: ignore[arg-type]
    text = path.read_text(encoding="utf-8")
    return report, Page(text), text


def test_the_page_carries_everything_with_it_and_runs_nothing(curated: World) -> None:
    _, page, text = write(curated)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "form", "base")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert sources and all(source.startswith("data:image/webp;base64,") for source in sources)
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert len(text) < 5_000_000


def test_figures_on_the_page_are_those_of_the_filter(curated: World) -> None:
    report, page, _ = write(curated)
    test = report.figures["categories"][0]["filter"]["test"]
    assert f"{test['num_caught']} of {test['num_positive']} held-out positives" in page.text
    ledger = report.figures["ledger"]
    assert ledger["seen"] == ledger["kept"] + sum(ledger["dropped"].values()) == 60
    assert "None yet." in page.text and "Not tested yet" in page.text


def test_each_figure_stands_beside_what_the_policy_asks_for(curated: World) -> None:
    report, page, text = write(curated)
    assert report.figures["categories"][0]["met"] == {"recall": True, "kept_share": True}
    assert page.text.count("asked for: 45.6 %") == page.text.count("asked for: 12.3 %") == 2
    assert '<td class="text good">yes</td>' in text
    report, page, text = write(curated, policy=policy_of(1.0))
    is_met = report.figures["categories"][0]["filter"]["test"]["recall"] == 1.0
    assert ('<td class="text good">yes</td>' if is_met else '<td class="text bad">no</td>') in text
    report, page, text = write(curated, policy=load_policy(None))
    assert report.figures["categories"][0]["demands"] is None
    assert "nothing is asked for" in page.text and "The policy does not name this category, so no release may hold it." in page.text


def test_hostile_captions_and_keys_stay_text(world: World) -> None:
    rows = (world.root / "images" / "metadata.csv").read_text().splitlines()
    quoted = HOSTILE.replace('"', '""')
    rows[1:] = [f'{row.split(",")[0]},"{quoted} red thing"' for row in rows[1:]]
    (world.root / "images" / "metadata.csv").write_text("\n".join(rows) + "\n")
    world.index()
    world.label()
    world.fit()
    world.curate()
    _, page, text = write(world, pictures="clear")
    assert HOSTILE in page.text
    assert "<script" not in text and "<img src=x" not in text and "49" not in re.sub(r"[^{]*", "", text)
    assert not [attributes for tag, attributes in page.tags if tag == "img" and "onerror" in attributes]


def test_pictures_that_the_filter_looks_for_are_veiled_unless_wanted(curated: World) -> None:
    def veils(pictures: str) -> tuple[int, int]:
        _, page, _ = write(curated, pictures=pictures)
        return (sum("veil" in (attributes.get("class") or "").split() for tag, attributes in page.tags if tag == "div"),
                sum(tag == "img" for tag, _ in page.tags))
    assert veils("veiled")[0] >= 2 and veils("veiled")[1] > 0
    assert veils("clear")[0] == 0
    assert veils("none")[1] == 0


def test_a_blurred_page_holds_no_picture_that_could_be_made_out(curated: World) -> None:
    import base64
    import io
    _, page, _ = write(curated, pictures="blurred")
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as image:
            assert max(image.size) <= 7


def test_mutations_and_groups_of_the_recipe_appear_once_they_are_there(curated: World) -> None:
    mutate(category(), curated.layout, curated.source, ClipConfig(), plan=Plan(2, 1))
    report = gather_report(recipe_of(curated, WordGroup(name="greens", words=("green",))), curated.layout, POLICY)
    assert report.figures["categories"][0]["mutations"]["num_positives"] == 2
    assert {row["group"] for row in report.figures["balance"]["groups"]} == {"greens"}
    assert "greens" in {row["group"] for row in report.figures["categories"][0]["slices"]}
    _, page, _ = write(curated)
    assert "in a screenshot" in page.text and "Not tested yet" not in page.text


def test_the_nearest_to_the_threshold_are_the_nearest(curated: World) -> None:
    ledger = open_ledger(curated.root / "curated")
    scores = [row["score_red"] for _, table in ledger.tables() for row in table.to_pylist()]
    scan = scan_scores(ledger, "red", threshold := float(ledger.curated["categories"]["red"]["threshold"]), 3)
    assert [shown.score for shown in scan.below] == sorted((score for score in scores if score < threshold), reverse=True)[:3]
    assert [shown.score for shown in scan.above] == sorted(score for score in scores if score >= threshold)[:3]
    assert scan.counts.sum() == scan.num_scored == 60


def test_a_sample_has_the_reason_that_was_asked_for_and_is_always_the_same(curated: World) -> None:
    ledger = open_ledger(curated.root / "curated")
    reasons = {row["key"]: row["reason"] for _, table in ledger.tables() for row in table.to_pylist()}
    kept, dropped = sample_rows(ledger, Reason(Cause.NOTHING), 5), sample_rows(ledger, Reason(Cause.FILTER, "red"), 5, score="red")
    assert len(kept) == len(dropped) == 5 and kept == sample_rows(ledger, Reason(Cause.NOTHING), 5)
    assert {reasons[shown.key] for shown in kept} == {""} and {reasons[shown.key] for shown in dropped} == {"filter:red"}
    assert all(shown.score is not None for shown in dropped)


def test_a_run_without_a_ledger_is_refused(fitted: World) -> None:
    with pytest.raises(StageError, match="no finished stage here"):
        write(fitted)


def test_two_runs_are_compared_on_a_page_with_pictures(curated: World, tmp_path: Path) -> None:
    (curated.root / "recipe.yaml").write_text(dump_recipe(recipe_of(curated)))
    found = compare(curated.root, curated.root, tmp_path / "same.html")
    assert "No input enters or leaves." in Page((tmp_path / "same.html").read_text()).text
    assert describe_difference(found)["compared"].startswith("60 inputs")
    shutil.copytree(curated.root, tmp_path / "first")
    strict = category(caption_words=("1", "4", "7"))
    curated.fit(strict)
    curated.curate(strict)
    changed = compare(tmp_path / "first", curated.root, tmp_path / "changed.html", pictures="clear")
    assert (changed.everyone.num_entering, changed.everyone.num_leaving) == (0, 3)
    page = Page((tmp_path / "changed.html").read_text())
    assert sum(tag == "img" for tag, _ in page.tags) == 3
    assert describe_difference(changed)["kept -> filter:red:caption_words"] == "3"


def test_hostile_text_stays_text_on_the_page_of_two_runs() -> None:
    changes = pa.table({"key": [HOSTILE], "change": ["leaves"], "reason_a": [""], "reason_b": [HOSTILE], "caption": [HOSTILE]})
    difference = Difference(Path("a"), Path(HOSTILE), [{"what": HOSTILE, "a": HOSTILE, "b": None}], changes=changes)
    difference.reasons["", HOSTILE] = 1
    text = render_difference(difference, {"enters": [], "leaves": choose_changes(difference, "leaves")}, {}, "clear")
    assert "<script" not in text and "<img src=x" not in text
    assert Page(text).text.count(HOSTILE) >= 4


def test_a_wrong_ending_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="must end in"):
        compare(tmp_path / "a", tmp_path / "b", tmp_path / "c.txt")


def test_a_page_without_pictures_needs_no_source(curated: World) -> None:
    shutil.rmtree(curated.root / "images")
    write_report(recipe_of(curated), curated.layout, None, curated.root / "report.html", policy=POLICY, pictures="none")
    assert "no picture" in Page((curated.root / "report.html").read_text()).text


def test_the_page_says_how_many_judged_images_have_no_caption(curated: World) -> None:
    assert "have no caption" not in write(curated, pictures="none")[1].text
    (curated.root / "images" / "metadata.csv").unlink()
    curated.index()
    curated.label()
    curated.fit()
    curate(curated.source, [category()], curated.layout, CurateConfig(captions="optional"))
    report, page, _ = write(curated, pictures="none")
    assert report.figures["balance"]["num_without_caption"] == 60
    assert "60 of the judged inputs have no caption" in page.text


def test_a_filter_without_held_out_labels_is_reported_as_not_measured(world: World) -> None:
    world.index()
    rows = [f"{number:03d}.png,red,{int(number % 3 == 0)}" for number in range(60) if role_of(f"{number:03d}.png", LabelsConfig()) != "test"]
    (world.root / "labels.csv").write_text("key,category,label\n" + "\n".join(rows) + "\n")
    import_labels(read_label_csv(world.root / "labels.csv"), world.root / "labels", world.root / "index", LabelsConfig())
    world.fit()
    world.curate()
    _, page, _ = write(world, pictures="none")
    assert "not measured" in page.text and "no held-out positives" in page.text


def test_changes_and_ratios_are_written_plainly() -> None:
    assert (signed_percent(-0.142), signed_percent(0.03), signed_percent(None)) == (
        "\N{MINUS SIGN}14.2\N{NO-BREAK SPACE}%", "+3.0\N{NO-BREAK SPACE}%", "not measured")
    assert (times(1.5), times(None)) == ("1.50 \N{MULTIPLICATION SIGN}", "\N{EN DASH}")


def test_labels_that_name_no_group_are_owned_up_to(curated: World) -> None:
    cautions = " ".join(gather_report(recipe_of(curated), curated.layout, POLICY).figures["categories"][0]["cautions"])
    assert "name no groups" in cautions and "held-out positives prove a recall of" in cautions
    positives = sum(row["role"] == "test" and row["label"] == 1 for row in read_table(curated.root / "filters/red/scores.parquet").to_pylist())
    assert cautions.count(f"{positives} held-out positives") == 1
