"""docs/evidence.md names every file that a release can hold."""

import re
from pathlib import Path

from glideslope.release.evidence.layout import RULES, rule_of

GUIDE = Path(__file__).parents[2] / "docs" / "evidence.md"


def named_paths() -> list[str]:
    """The paths in the first column of the guide's tables, folders put before names, placeholders filled in."""
    found = []
    for line in GUIDE.read_text().splitlines():
        if line.startswith("| `"):
            folder = ""
            for text in re.findall(r"`([^`]+)`", line.split("|")[1]):
                path = text if "/" in text or not folder else folder + text
                folder = path[:path.rfind("/") + 1] if "/" in path else folder
                found.append(path)
    return found


def matches(path: str, named: str) -> bool:
    pattern = re.escape(named).replace(r"\*", "[a-z0-9_-]+").replace("<category>", "[a-z0-9_]+").replace("<id>", "[a-z0-9_]+")
    pattern = pattern.replace("<model>", "[a-z_]+").replace("…", r"[a-z0-9_.-]*")
    return re.fullmatch(pattern, path) is not None or (named.endswith("/") and path.startswith(named))


def test_every_file_of_a_release_is_in_the_guide(packed_run: Path) -> None:
    named, release = named_paths(), packed_run / "release"
    present = [path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()]
    assert [path for path in present if not any(matches(path, one) for one in named)] == []


def test_every_rule_for_a_file_has_a_place_in_the_guide() -> None:
    examples = ["evidence/golden/picture_01.png", "evidence/mutations/person/planted.parquet", "evidence/evaluation/guidance.jsonl",
                "evidence/evaluation/upsampler.jsonl", "evidence/training/upsampler/held_back.jsonl",
                "evidence/audits/person/person_001/sample.json", "manifest.dsse.json", "upsampler/config.json",
                "clip_tokenizer/tokenizer.json", "upsampler_scheduler/scheduler_config.json", "base_inpaint/config.json"]
    assert all(rule_of(example) in RULES for example in examples)
    assert [example for example in examples if not any(matches(example, one) for one in named_paths())] == []
