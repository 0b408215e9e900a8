"""What Prometheus is told to scrape."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.acceptance.k8s.prometheus import as_debian_takes_it, need_prometheus, scrape_config
from tests.acceptance.k8s.promql import PROMETHEUS
from tests.support import LIMIT_S


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    need_prometheus()
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(as_debian_takes_it(scrape_config())))
    (tmp_path / "alerts.yml").write_text((PROMETHEUS / "alerts.yml").read_text())

    done = subprocess.run(
        # The token's file is there in the pod alone.
        ["promtool", "check", "config", "--syntax-only", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_may_see_the_pods_of_the_namespaces_that_it_scrapes_and_of_no_other() -> None:
    scraped = {
        namespace
        for job in scrape_config()["scrape_configs"]
        for discovery in job["kubernetes_sd_configs"]
        for namespace in discovery.get("namespaces", {}).get("names", [])
    }
    objects = yaml.safe_load_all((PROMETHEUS / "rbac.yaml").read_text())
    bound = {
        each["metadata"]["namespace"]
        for each in objects
        if each["kind"] == "RoleBinding" and each["roleRef"]["name"] == "prometheus-pods"
    }

    assert scraped == bound
