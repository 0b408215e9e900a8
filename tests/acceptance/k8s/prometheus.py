"""A real Prometheus, Debian's, with the scrape configuration of the manifests.

Debian builds it without Kubernetes' discovery: what that would find is given as static targets
with the same meta labels; what follows, relabelling above all, is as in the cluster.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import yaml

from devtools.ports import LOOPBACK, free_ports
from tests.acceptance.k8s.promql import PROMETHEUS
from tests.support import WebProgram, give_up, wait_until

#: The jobs that a test can answer for; a kubelet is not to be had.
_POD_JOBS: Final = ("pods", "rabbitmq-queues")


def need_prometheus() -> None:
    """Skip where Prometheus is not installed; fail in CI."""
    if not (shutil.which("promtool") and shutil.which("prometheus")):
        give_up("no Prometheus on this machine; scripts/test-setup installs it")


def scrape_config() -> dict[str, Any]:
    """Return ``prometheus.yml`` of the manifests."""
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    return config


def as_debian_takes_it(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration without what Debian's 2.42 does not know.

    That is Kubernetes' discovery, which Debian leaves out, and the retention, a flag until 3.x.
    """
    config = copy.deepcopy(config)
    del config["storage"]
    for job in config["scrape_configs"]:
        del job["kubernetes_sd_configs"]
    return config


def discovered(
    address: str,
    *,
    name: str,
    namespace: str = "lambda",
    component: str = "function",
    port: int | None = None,
    **more: str,
) -> dict[str, Any]:
    """Return one port of a pod, as Kubernetes' discovery describes it.

    ``port`` is the annotated one, without which there are no annotations; ``more`` are meta labels.
    """
    labels = {
        "namespace": namespace,
        "pod_name": f"{name}-0",
        "pod_phase": "Running",
        "pod_label_app_kubernetes_io_name": name,
        "pod_label_app_kubernetes_io_component": component,
        **more,
    }
    if port is not None:
        labels["pod_annotation_prometheus_io_scrape"] = "true"
        labels["pod_annotation_prometheus_io_port"] = str(port)
        labels["pod_annotation_prometheus_io_path"] = "/metrics"
    meta = {f"__meta_kubernetes_{key}": value for key, value in labels.items()}
    return {"targets": [address], "labels": meta}


class Prometheus(WebProgram):
    """Prometheus on a free port, its data in ``folder``, scraping ``found`` once a second."""

    def __init__(self, folder: Path, found: Sequence[Mapping[str, Any]]) -> None:
        config = as_debian_takes_it(scrape_config())
        config["global"].update(scrape_interval="1s", scrape_timeout="1s", evaluation_interval="1s")
        config["scrape_configs"] = [
            job for job in config["scrape_configs"] if job["job_name"] in _POD_JOBS
        ]
        for job in config["scrape_configs"]:
            job.update(scrape_interval="1s", scrape_timeout="1s", static_configs=list(found))
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        shutil.copy(PROMETHEUS / "alerts.yml", folder)
        [port] = free_ports(1)
        command = [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={LOOPBACK}:{port}",
        ]
        super().__init__("prometheus", command, {}, port=port, ready=False)

    def __enter__(self) -> Self:
        super().__enter__()
        wait_until(lambda: self.get("/-/ready").status == 200, "Prometheus to be ready")
        return self

    def api(self, path: str) -> Any:
        """Return the data of an answer of its API, below ``/api/v1``."""
        answer = json.loads(self.get(f"/api/v1{path}").body)
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series that ``expression`` has now."""
        found = self.api(f"/query?query={quote(expression)}")["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def value(self, expression: str) -> float | None:
        """Return the one value that ``expression`` has now; None without any."""
        found = self.query(expression)
        assert len(found) < 2, found
        return found[0][1] if found else None

    def metrics(self) -> set[str]:
        """Return the names of all metrics that it has."""
        return set(self.api("/label/__name__/values"))
