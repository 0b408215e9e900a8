"""From one alternative to another: never two autoscalers on one Deployment.

KEDA and prometheus-adapter both serve external.metrics.k8s.io, so only one of them may be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from devtools.kind_cluster import components, names
from devtools.kind_cluster.credentials import BROKER, RABBITMQ
from devtools.kind_cluster.found import Autoscaler, Found
from devtools.kind_cluster.names import Dashboard, Scaling, kubectl
from devtools.kind_cluster.steps import Command, Step

_OUR_TARGETS: Final = {f"Deployment/{name}" for name in (*names.FUNCTIONS, names.SERVER)}


class Refused(Exception):
    """What is there must not be touched; the message says what it is and what to do."""


def refuse_foreign(scaling: Scaling, found: Found) -> None:
    """Raise Refused if something that is not ours would be in the way, or be lost."""
    problems = [
        f"{each} scales {each.target}, which scripts/cluster looks after: delete it first, "
        "two autoscalers must not have the same target"
        for each in found.autoscalers
        if each.is_foreign and each.namespace == names.LAMBDA and each.target in _OUR_TARGETS
    ]
    if scaling.uses_adapter and found.has_keda:
        problems += [
            f"{each} needs KEDA, which --scaling {scaling} would remove, as only one can serve "
            "external.metrics.k8s.io: delete it first, or keep KEDA"
            for each in found.others_of_keda
        ]
    if _is_there(components.RABBITMQ, found) and not {BROKER, RABBITMQ} & found.secrets.keys():
        problems.append(
            "RabbitMQ is there, but both Secrets with its password are gone (messaging/rabbitmq "
            "and lambda/broker), and no other password will do: scripts/cluster down, then up"
        )
    if problems:
        raise Refused("\n".join(problems))


def switch_scaling(scaling: Scaling, found: Found) -> list[Step]:
    """Return what removes the alternatives that ``scaling`` is not."""
    commands = [
        *([] if scaling.uses_keda else _leave_keda(scaling, found)),
        *([] if scaling.uses_adapter else _leave_adapter(found)),
    ]
    title = f"Scaling other than {scaling}"
    return [Step(title=title, actions=tuple(commands), result="removed")] if commands else []


def switch_dashboard(dashboard: Dashboard, found: Found) -> list[Step]:
    """Return what removes the dashboards that ``dashboard`` is not: they share a port."""
    return [
        Step(title=other.title, actions=(other.remove(),), result="removed")
        for each, other in components.DASHBOARDS.items()
        if each != dashboard and _is_there(other, found)
    ]


def _leave_keda(scaling: Scaling, found: Found) -> list[Command]:
    """Its objects first, while its operator is there to let go of them."""
    ours = [each for each in found.autoscalers if each.function]
    objects = [each for each in ours if each.is_of_keda]
    commands = []
    if objects:
        commands.append(_delete("scaledobjects.keda.sh", *(each.name for each in objects)))
    for each in ours:
        if each.owner:
            commands.append(components.wait_until_gone(f"hpa/{each.name}", names.LAMBDA))
    if scaling.uses_adapter:
        commands += _wake_up(objects, found)
    if found.has_keda and not found.others_of_keda:
        commands.append(_delete("triggerauthentications.keda.sh", "--all"))
        commands.append(components.KEDA.remove())
    return commands


def _wake_up(objects: Sequence[Autoscaler], found: Found) -> list[Command]:
    """KEDA leaves a function with the pods it had, maybe none, and an HPA leaves none alone."""
    commands = []
    for each in objects:
        function = found.workload(names.LAMBDA, f"deployment/{each.function}")
        if function is not None:
            replicas = f"--replicas={max(1, function.wanted)}"
            argv = kubectl("scale", function.reference, replicas, namespace=names.LAMBDA)
            commands.append(Command(argv=argv))
    return commands


def _leave_adapter(found: Found) -> list[Command]:
    hpas = [each.name for each in found.autoscalers
            if each.function and not each.is_of_keda and not each.owner]  # fmt: skip
    commands = [_delete("hpa", *hpas)] if hpas else []
    return [*commands, *([components.ADAPTER.remove()] if found.has_adapter else [])]


def _delete(kind: str, *which: str) -> Command:
    return components.delete(kind, *which, namespace=names.LAMBDA)


def _is_there(component: components.Component, found: Found) -> bool:
    return found.workload(component.namespace, component.workloads[0]) is not None
