"""Overlay `small`: the UI in a real browser, down to what a finished run's pod printed."""

import re

import pytest
from playwright.sync_api import expect

OVERLAY = "small"
pytestmark = pytest.mark.cluster


def test_materialize_all_is_clicked_and_the_run_gold_and_its_output_are_seen(cluster, kubectl, browser_page):
    cluster.quiet()
    before = cluster.gold()
    browser_page.goto(f"{cluster.ui()}/asset-groups")
    browser_page.get_by_role("button", name="Materialize all").click()
    browser_page.get_by_role("link", name="View", exact=True).click()
    expect(browser_page.get_by_text(re.compile("^(Success|Failure)$"))).to_have_text("Success", timeout=180_000)
    assert cluster.gold() == {kind: before.get(kind, 0) + 10 for kind in ("bike", "car", "scoot")}

    run_id = browser_page.url.rsplit("/", 1)[1].partition("?")[0]
    kubectl("delete", "job", f"dagster-run-{run_id}")
    browser_page.get_by_role("button", name="stdout").click()
    browser_page.get_by_placeholder("Select a step").click()
    browser_page.get_by_role("menuitem").click()
    expect(browser_page.get_by_text("30 events delivered to vehicles-events")).to_be_visible()
    browser_page.get_by_role("button", name="stderr").click()
    expect(browser_page.get_by_text("gold__stats_equals_recomputation - STEP_SUCCESS")).to_be_visible()

    browser_page.goto(f"{cluster.ui()}/assets/gold/stats")
    for kind, total in cluster.gold().items():
        expect(browser_page.get_by_role("row", name=re.compile(rf"^{kind} {total} "))).to_be_visible()
    browser_page.get_by_role("tab", name="Checks").click()
    expect(browser_page.get_by_text("equals_recomputation").first).to_be_visible()
    expect(browser_page.get_by_text("Passed", exact=True)).to_be_visible()
