"""Our checker of Pod Security Standards refuses what Kubernetes does, rule by rule.

The broken pods are those of the admission controller's own tests (k8s.io/pod-security-admission,
test/fixtures_*.go).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.acceptance.k8s import pod_security
from tests.acceptance.k8s.pod_security import BASELINE, RESTRICTED, Rule, violations

RESTRICTED_POD: Final[dict[str, Any]] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "initContainers": [
        {
            "name": "init",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
    ],
    "containers": [
        {
            "name": "main",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            },
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "rapid", "image": {}}],
}
HTTP_GET: Final = {"httpGet": {"host": "10.0.0.1"}}


def of_pod(**fields: Any) -> Callable[[Any], None]:
    return lambda spec: spec.update(fields)


def of_context(**fields: Any) -> Callable[[Any], None]:
    return lambda spec: spec["securityContext"].update(fields)


def of_container(**fields: Any) -> Callable[[Any], None]:
    return lambda spec: spec["containers"][0].update(fields)


def of_init(**fields: Any) -> Callable[[Any], None]:
    return lambda spec: spec["initContainers"][0].update(fields)


def allowed(**fields: Any) -> Callable[[Any], None]:
    """Change the container's security context."""
    return lambda spec: spec["containers"][0]["securityContext"].update(fields)


#: The rule, and the ways to break it: nothing else may complain.
BROKEN: Final[list[tuple[Rule, list[Callable[[Any], None]]]]] = [
    (
        pod_security.host_process,
        [
            of_context(windowsOptions={"hostProcess": True}),
            allowed(windowsOptions={"hostProcess": True}),
        ],
    ),
    (
        pod_security.host_namespaces,
        [of_pod(hostNetwork=True), of_pod(hostPID=True), of_pod(hostIPC=True)],
    ),
    (pod_security.privileged, [allowed(privileged=True)]),
    (
        pod_security.host_path_volumes,
        [of_pod(volumes=[{"name": "host", "hostPath": {"path": "/"}}])],
    ),
    (pod_security.host_ports, [of_container(ports=[{"containerPort": 80, "hostPort": 80}])]),
    (
        pod_security.host_of_probes_and_hooks,
        [
            of_container(livenessProbe=HTTP_GET),
            of_container(readinessProbe={"tcpSocket": {"host": "10.0.0.1"}}),
            of_init(startupProbe=HTTP_GET),
            of_container(lifecycle={"preStop": HTTP_GET}),
            of_container(lifecycle={"postStart": HTTP_GET}),
        ],
    ),
    (
        pod_security.apparmor,
        [
            of_context(appArmorProfile={"type": "Unconfined"}),
            allowed(appArmorProfile={"type": "Unconfined"}),
        ],
    ),
    (
        pod_security.selinux,
        [
            of_context(seLinuxOptions={"type": "spc_t"}),
            allowed(seLinuxOptions={"user": "system_u"}),
            allowed(seLinuxOptions={"role": "sysadm_r"}),
        ],
    ),
    (pod_security.proc_mount, [allowed(procMount="Unmasked")]),
    (
        pod_security.seccomp_set_to_unconfined,
        [
            of_context(seccompProfile={"type": "Unconfined"}),
            allowed(seccompProfile={"type": "Unconfined"}),
        ],
    ),
    (
        pod_security.sysctls,
        [of_context(sysctls=[{"name": "kernel.msgmax", "value": "65536"}])],
    ),
    (
        pod_security.volume_types,
        [of_pod(volumes=[{"name": "nfs", "nfs": {}}])],
    ),
    (
        pod_security.privilege_escalation,
        [
            allowed(allowPrivilegeEscalation=True),
            allowed(allowPrivilegeEscalation=None),
            of_init(securityContext={"capabilities": {"drop": ["ALL"]}}),
        ],
    ),
    (
        pod_security.running_as_root,
        [
            of_context(runAsNonRoot=False),
            of_context(runAsNonRoot=None),
            allowed(runAsNonRoot=False),
        ],
    ),
    (pod_security.user_zero, [of_context(runAsUser=0), allowed(runAsUser=0)]),
    (pod_security.seccomp_not_set, [of_context(seccompProfile=None)]),
    (
        pod_security.capabilities_kept,
        [
            allowed(capabilities=None),
            allowed(capabilities={"drop": ["NET_RAW"]}),
            allowed(capabilities={"drop": ["ALL"], "add": ["CHOWN"]}),
        ],
    ),
]


def test_a_restricted_pod_is_taken() -> None:
    assert violations({}, RESTRICTED_POD) == []


@pytest.mark.parametrize(
    ("rule", "break_it"),
    [
        pytest.param(rule, break_it, id=f"{rule.__name__}-{number}")
        for rule, ways in BROKEN
        for number, break_it in enumerate(ways)
    ],
)
def test_a_broken_pod_is_refused_by(rule: Rule, break_it: Callable[[Any], None]) -> None:
    spec = copy.deepcopy(RESTRICTED_POD)

    break_it(spec)

    # A hostPath is also of a type that restricted does not know.
    related = {pod_security.volume_types} if rule is pod_security.host_path_volumes else set()
    complaining = {each for each in (*BASELINE, *RESTRICTED) if list(each({}, spec))}
    assert complaining == {rule, *related}
    assert bool(violations({}, spec, "baseline")) == (rule in BASELINE)
    assert violations({}, spec, "privileged") == []


def test_a_capability_beyond_the_default_ones_breaks_baseline_too() -> None:
    spec = copy.deepcopy(RESTRICTED_POD)

    allowed(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]})(spec)

    assert violations({}, spec, "baseline") == ["main: capabilities.add NET_RAW"]


def test_an_apparmor_annotation_counts() -> None:
    metadata = {
        "annotations": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}
    }

    assert len(violations(metadata, RESTRICTED_POD, "baseline")) == 1


def test_a_container_may_set_what_its_pod_does_not() -> None:
    spec = copy.deepcopy(RESTRICTED_POD)
    del spec["securityContext"]
    for each in (*spec["initContainers"], *spec["containers"]):
        each["securityContext"] |= {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "Localhost", "localhostProfile": "one"},
        }

    assert violations({}, spec) == []


def test_every_rule_has_a_broken_pod() -> None:
    covered = {rule for rule, _ in BROKEN} | {pod_security.capabilities_added}

    assert covered == {*BASELINE, *RESTRICTED}
