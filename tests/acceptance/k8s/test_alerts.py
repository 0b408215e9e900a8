"""promtool takes what Prometheus is told, and alerts fire when alerts_test.yml says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.acceptance.k8s.prometheus import as_debian_takes_it, need_prometheus, scrape_config
from tests.acceptance.k8s.promql import PROMETHEUS, alerts
from tests.support import LIMIT_S, run_command

RULES = PROMETHEUS / "alerts.yml"
RULE_TESTS = Path(__file__).with_name("alerts_test.yml")


@pytest.fixture(autouse=True)
def _promtool() -> None:
    need_prometheus()


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_command("promtool", *arguments, timeout=LIMIT_S)


def test_the_configuration_and_the_rules_are_valid(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(as_debian_takes_it(scrape_config())))
    (tmp_path / RULES.name).write_text(RULES.read_text())

    # The token's file is there in the pod alone.
    done = promtool("check", "config", "--syntax-only", tmp_path / "prometheus.yml")
    rules = promtool("check", "rules", RULES)

    assert (done.returncode, rules.returncode) == (0, 0), done.stdout + done.stderr + rules.stdout


def test_alerts_fire_where_they_should_and_nowhere_else() -> None:
    done = promtool("test", "rules", RULE_TESTS)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("broken", ["vector(0) > 1", "vector(1)"], ids=["never", "always"])
def test_alerts_that_fire_never_or_always_are_noticed_each(tmp_path: Path, broken: str) -> None:
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = broken
    (tmp_path / RULES.name).write_text(yaml.safe_dump(rules))
    tests = yaml.safe_load(RULE_TESTS.read_text())
    (tmp_path / RULE_TESTS.name).write_text(yaml.safe_dump({**tests, "rule_files": [RULES.name]}))

    done = promtool("test", "rules", tmp_path / RULE_TESTS.name)

    assert done.returncode == 1
    assert [name for name in alerts() if name not in done.stdout + done.stderr] == []


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_to_do_and_shows_only_labels_that_its_series_keep(name: str) -> None:
    rule = alerts()[name]
    shown = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    kept = re.findall(r"by \(([^)]*)\)", rule["expr"])

    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert sorted(rule["annotations"]) == ["action", "description", "summary"]
    if kept:
        assert shown <= set(re.split(r",\s*", kept[0]))
    else:  # absent() has none but those that one target has; up has a target's
        assert shown <= {"job", "pod", "node"}
        assert not shown or rule["expr"].startswith("up ")


def test_prometheus_may_see_the_pods_of_the_namespaces_that_it_scrapes_and_of_no_other() -> None:
    scraped = {
        namespace
        for job in scrape_config()["scrape_configs"]
        for discovery in job["kubernetes_sd_configs"]
        for namespace in discovery.get("namespaces", {}).get("names", [])
    }
    bound = {
        each["metadata"]["namespace"]
        for each in yaml.safe_load_all((PROMETHEUS / "rbac.yaml").read_text())
        if each["kind"] == "RoleBinding" and each["roleRef"]["name"] == "prometheus-pods"
    }

    assert scraped == bound
