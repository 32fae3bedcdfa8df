"""Runs killed by SIGKILL at every moment, while records keep coming: the tables are those of clean runs, every time."""

import os

import pytest

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("FAULTS_KILLS") or 13)
MINUTES = float(os.environ.get("FAULTS_MINUTES") or 1)
IN_FULL = "FAULTS_KILLS" in os.environ

# Of the kills, and of the minutes: Apache Spark is the slower one to die.
SHARES = [("Sail", 0.8, 0.6, None)]
if IN_FULL:
    SHARES += [("Apache Spark", 0.1, 0.2, 100_000), ("Apache Spark, its own writer", 0.1, 0.2, 0)]


@pytest.mark.parametrize(("engine", "of_kills", "of_minutes", "most"), SHARES, ids=[share[0] for share in SHARES])
def test_however_runs_die_the_tables_are_those_of_clean_runs(
    request, harness, reliability, engine, of_kills, of_minutes, most
):
    on_spark = most is not None
    seen = harness(
        engine,
        kills=round(KILLS * of_kills) if IN_FULL else KILLS,
        minutes=MINUTES * (of_minutes if IN_FULL else 1),
        checks=max(2, KILLS // 25 // (4 if on_spark else 1)) if IN_FULL else 1,
        remote=request.getfixturevalue("spark_connect_server") if on_spark else None,
        most=most if on_spark else 100_000,
    )
    reliability.add(seen)
    assert +seen.wrong == {}
    assert seen.half_written == []
    assert seen.hands == 0
    assert seen.failed == 0
    assert seen.kills.total() > 0
