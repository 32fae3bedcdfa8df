"""What a session does, on each engine."""


def test_a_session_computes_in_utc(engine):
    row = engine.session.sql(
        "SELECT 1 + 1 AS two, CAST(TIMESTAMP '2026-01-01 00:30:00+01:00' AS STRING) AS time"
    ).first()
    assert (row.two, row.time) == (2, "2025-12-31 23:30:00")


def test_it_is_one_session_until_it_is_closed(engine):
    assert engine.session is engine.session


def test_only_apache_spark_is_distributed(engine, remote):
    assert engine.distributed == (remote is not None)
