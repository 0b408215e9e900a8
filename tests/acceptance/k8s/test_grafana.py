"""Dashboards are whole: panels that do not overlap, of one data source that the reader chooses."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests.acceptance.k8s.promql import DASHBOARDS, panels


@pytest.fixture(params=DASHBOARDS, ids=lambda file: file.stem)
def dashboard(request: pytest.FixtureRequest) -> str:
    file: Path = request.param
    return file.read_text()


def test_each_panel_has_a_title_a_description_and_a_place_of_its_own(dashboard: str) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"]
        at = panel["gridPos"]
        taken = set(
            itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
        )
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells |= taken


def test_ids_are_unique(dashboard: str) -> None:
    ids = [panel["id"] for panel in panels(dashboard)]

    assert len(ids) == len(set(ids))


def test_the_data_source_is_the_one_that_is_chosen(dashboard: str) -> None:
    variables = {each["name"]: each for each in json.loads(dashboard)["templating"]["list"]}
    sources = {
        part["datasource"]["uid"]
        for panel in panels(dashboard)
        for part in [panel, *panel["targets"]]
    }

    assert variables["datasource"]["type"] == "datasource"
    assert sources == {"${datasource}"}


def test_dashboards_are_told_apart_by_uid() -> None:
    uids = [json.loads(file.read_text())["uid"] for file in DASHBOARDS]

    assert len(set(uids)) == len(uids) == 2
