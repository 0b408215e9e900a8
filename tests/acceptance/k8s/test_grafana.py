"""Dashboards are whole: panels that do not overlap, of one data source that the reader chooses."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests.acceptance.k8s.promql import DASHBOARDS, panels


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_each_panel_is_told_apart_explained_and_has_a_place_of_its_own(file: Path) -> None:
    text = file.read_text()
    cells: set[tuple[int, int]] = set()
    for panel in panels(text):
        assert panel["title"]
        assert panel["description"]
        sources = {part["datasource"]["uid"] for part in [panel, *panel["targets"]]}
        assert sources == {"${datasource}"}
        at = panel["gridPos"]
        columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        taken = set(itertools.product(columns, rows))
        assert not cells & taken, panel["title"]
        assert columns.stop <= 24, panel["title"]
        cells |= taken
    assert len({panel["id"] for panel in panels(text)}) == len(panels(text))
    variables = {each["name"]: each for each in json.loads(text)["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"


def test_dashboards_are_told_apart_by_uid() -> None:
    assert len({json.loads(file.read_text())["uid"] for file in DASHBOARDS}) == 2
