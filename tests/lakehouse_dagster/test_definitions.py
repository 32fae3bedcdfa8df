"""What the code location offers, pinned: a change of these names is a change for its users."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from lakehouse_dagster.definitions import defs

PROJECT = Path(__file__).parents[2]


def test_the_definitions_load():
    dg.Definitions.validate_loadable(defs)


def test_assets_and_what_they_stand_on():
    graph = defs.resolve_asset_graph()
    assert {
        key.to_user_string(): sorted(k.to_user_string() for k in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
    } == {
        "kafka/vehicles_events": [],
        "bronze/vehicles_events": ["kafka/vehicles_events"],
        "silver/vehicles_events": ["bronze/vehicles_events"],
        "silver/rejected_events": ["bronze/vehicles_events", "silver/vehicles_events"],
        "gold/daily_stats": ["silver/rejected_events", "silver/vehicles_events"],
        "gold/stats": ["gold/daily_stats"],
    }


def test_checks_and_jobs_and_sensors():
    graph = defs.resolve_asset_graph()
    assert sorted(key.to_user_string() for key in graph.asset_check_keys) == [
        "gold/stats:equals_recomputation",
        "silver/rejected_events:every_record_is_accounted_for",
        "silver/vehicles_events:event_id_is_unique",
        "silver/vehicles_events:values_are_in_range",
    ]
    assert sorted(job.name for job in defs.jobs or []) == ["audit", "lakehouse", "refresh"]
    assert [sensor.name for sensor in defs.sensors or []] == ["new_vehicle_events"]
    assert [sensor.default_status for sensor in defs.sensors or []] == [dg.DefaultSensorStatus.RUNNING]


@pytest.mark.parametrize("layer", ["kafka", "bronze", "silver", "gold"])
def test_every_asset_says_its_grain_owner_kind_and_group(layer):
    graph = defs.resolve_asset_graph()
    for node in (graph.get(key) for key in graph.get_all_asset_keys() if key.path[0] == layer):
        assert "Grain: one r" in (node.description or ""), node.key
        assert node.owners, node.key
        assert node.kinds, node.key
        assert node.group_name == ("ingestion" if layer == "kafka" else layer)


def test_every_column_is_described():
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        schema = graph.get(key).metadata.get("dagster/column_schema")
        assert (schema is None) == (key.path[0] == "kafka")
        assert all(column.description for column in (schema.columns if schema else [])), key


def test_only_the_workspace_file_names_the_code_location():
    tools = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]
    assert not {"dagster", "dg"} & set(tools), "such a table would shadow workspace.yaml"
    (target,) = yaml.safe_load((PROJECT / "workspace.yaml").read_text())["load_from"]
    assert target["python_module"] == {
        "module_name": "lakehouse_dagster.definitions",
        "location_name": "lakehouse_dagster",
    }


def test_loading_starts_and_writes_nothing(tmp_path):
    code = (
        "import sys, lakehouse_dagster.definitions, psutil\n"
        "assert not psutil.Process().children(), 'a process was started'\n"
        "assert not {'pysail', 'dagster_pyspark', 'jgo', 'grpc_status', 'kubernetes'} & set(sys.modules)"
    )
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
