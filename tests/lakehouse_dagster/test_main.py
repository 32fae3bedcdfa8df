"""The commands of `python -m lakehouse_dagster` that start nothing; `dev` is in tests/integration."""

import dagster as dg
import pyarrow as pa
import pytest

from assets.stats import gold_stats
from lakehouse_dagster import __main__ as cli
from resources.parquet import ParquetIOManager


@pytest.fixture
def lake(tmp_path, monkeypatch):
    manager = ParquetIOManager(root=str(tmp_path))
    monkeypatch.setattr(cli, "parquet", manager)
    return manager


def test_gold_prints_the_table_and_where_it_lies(lake, capsys):
    class Rows:
        def toArrow(self):
            return pa.table(
                {"type": ["bike", "car"], "total": [10, 20], "avg_battery": [None, 51.5], "max_lat": [48.9, 49.0]}
            )

    with dg.build_output_context(asset_key=gold_stats.key, run_id="r") as context:
        lake.handle_output(context, Rows())
    assert cli.main(["gold"]) == 0
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines()[:3]] == [
        ["type", "total", "avg_battery", "max_lat"],
        ["bike", "10", "NaN", "48.9"],
        ["car", "20", "51.5", "49.0"],
    ]
    assert str(lake.path(gold_stats.key)) in printed


def test_gold_says_what_to_do_when_there_is_none(lake, capsys):
    assert cli.main(["gold"]) == 1
    assert "run the job `lakehouse` first" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["silver"], ["gold", "--loud"]])
def test_other_words_are_refused_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_code:
        cli.main(arguments)
    assert exit_code.value.code == 2
    assert "usage: python -m lakehouse_dagster" in capsys.readouterr().err
