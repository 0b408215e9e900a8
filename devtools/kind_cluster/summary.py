"""Where everything is, and how to call it."""

from __future__ import annotations

import shlex

from devtools.kind_cluster.manifests import (
    AMQP_PORT,
    DASHBOARD_PORT,
    MANAGEMENT_PORT,
    METRICS_PORT,
    PROMETHEUS_PORT,
    REGISTRY_PORT,
    SERVER_PORT,
    Manifests,
)
from devtools.kind_cluster.names import SERVER, Dashboard
from devtools.kind_cluster.plan import ECHO, EVENT, Choice, path


def urls(manifests: Manifests) -> dict[str, str]:
    """Return, for each workload that this machine reaches, where."""
    amqp, metrics = manifests.url(AMQP_PORT, "amqp"), manifests.url(METRICS_PORT)
    return {
        SERVER: manifests.url(SERVER_PORT),
        "rabbitmq": f"{manifests.url(MANAGEMENT_PORT)}   {amqp}   {metrics}/metrics",
        "prometheus": manifests.url(PROMETHEUS_PORT),
        "registry": f"{manifests.url(REGISTRY_PORT)}/v2/_catalog",
        "kubernetes-dashboard": manifests.url(DASHBOARD_PORT, "https"),
        "headlamp": manifests.url(DASHBOARD_PORT),
    }


def summary(choice: Choice, manifests: Manifests) -> str:
    """Return what ``up`` says at the end."""
    server, event = manifests.url(SERVER_PORT), shlex.quote(EVENT)
    absent = {"kubernetes-dashboard", "headlamp"}
    if choice.dashboard is not Dashboard.NONE:
        absent.remove(_workload(choice.dashboard))
    table = "\n".join(
        f"  {name:<22}{url}" for name, url in urls(manifests).items() if name not in absent
    )
    has_dashboard = choice.dashboard is not Dashboard.NONE
    token = "The dashboard wants a token: scripts/cluster token\n" if has_dashboard else ""
    # Versions 1 and 2 of the aws command read a payload given in place differently.
    return f"""
{table}

Scaling: {choice.scaling}. Call a function:

  curl -XPOST {server}{path(ECHO)} -d {event}

  echo {event} | aws lambda invoke --endpoint-url {server} \\
      --region us-east-1 --no-sign-request --function-name {ECHO} \\
      --payload fileb:///dev/stdin answer.json && cat answer.json

{token}RabbitMQ's user and password are in the Secret `rabbitmq` of the namespace `messaging`.
How it is: scripts/cluster status   Delete it: scripts/cluster down"""


def _workload(dashboard: Dashboard) -> str:
    return "headlamp" if dashboard is Dashboard.HEADLAMP else "kubernetes-dashboard"
