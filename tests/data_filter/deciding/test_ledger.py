import pytest

from glideslope.data_filter.deciding.ledger import open_ledger
from glideslope.errors import StageError

from ..conftest import World


def test_a_ledger_has_its_shards_in_order_and_its_categories(fitted: World) -> None:
    fitted.curate()
    ledger = open_ledger(fitted.root / "curated")
    assert ledger.shards == [f"shard-{number:05d}" for number in range(4)]
    assert ledger.categories == ["red"]
    assert sum(len(table) for _, table in ledger.tables(columns=["key"])) == 60


def test_a_ledger_that_was_changed_or_lost_a_file_is_refused(fitted: World) -> None:
    fitted.curate()
    path = fitted.root / "curated" / "ledger" / "shard-00001.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(StageError, match=r"shard-00001.parquet: is changed since"):
        open_ledger(fitted.root / "curated")
    path.unlink()
    with pytest.raises(StageError, match="is missing since"):
        open_ledger(fitted.root / "curated")
