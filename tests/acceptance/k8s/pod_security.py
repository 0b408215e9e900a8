"""Kubernetes' Pod Security Standards "baseline" and "restricted", rule by rule.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ and the admission
controller's own code (k8s.io/pod-security-admission, policy/, 0.36); read on 2026-11-24. Of the 148
pods in its tests for 1.35 this judges 146 alike; it refuses one for Windows, and one that may have
another procMount for its user namespace. Ephemeral containers are in no manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.acceptance.k8s.manifests import at

Rule = Callable[[dict[str, Any], dict[str, Any]], Iterator[str]]

_CAPABILITIES: Final = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
_SYSCTLS: Final = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_SELINUX_TYPES: Final = {
    *(None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"),
}
_PROFILES: Final = {"RuntimeDefault", "Localhost"}
_APPARMOR_ANNOTATION: Final = "container.apparmor.security.beta.kubernetes.io/"
_VOLUMES: Final = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
    *("persistentVolumeClaim", "projected", "secret"),
}


def violations(
    metadata: dict[str, Any], spec: dict[str, Any], level: str = "restricted"
) -> list[str]:
    """Return what a pod does against ``level``: "privileged", "baseline" or "restricted"."""
    rules: dict[str, tuple[Rule, ...]] = {
        "privileged": (),
        "baseline": BASELINE,
        "restricted": (*BASELINE, *RESTRICTED),
    }
    return [problem for rule in rules[level] for problem in rule(metadata, spec)]


# --- baseline


def host_process(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for who, context in _contexts(spec):
        if at(context, "windowsOptions.hostProcess"):
            yield f"{who}: windowsOptions.hostProcess"


def host_namespaces(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name


def privileged(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for container in _containers(spec):
        if at(container, "securityContext.privileged"):
            yield f"{container['name']}: privileged"


def capabilities_added(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for container in _containers(spec):
        for each in set(at(container, "securityContext.capabilities.add", [])) - _CAPABILITIES:
            yield f"{container['name']}: capabilities.add {each}"


def host_path_volumes(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for volume in spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']}: hostPath"


def host_ports(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for container in _containers(spec):
        for port in container.get("ports", []):
            if port.get("hostPort"):
                yield f"{container['name']}: hostPort {port['hostPort']}"


def host_of_probes_and_hooks(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for container in _containers(spec):
        probes = {name: container.get(name) for name in container if name.endswith("Probe")}
        for name, handler in {**probes, **container.get("lifecycle", {})}.items():
            if at(handler, "httpGet.host") or at(handler, "tcpSocket.host"):
                yield f"{container['name']}: {name} names a host"


def apparmor(metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for who, context in _contexts(spec):
        profile = at(context, "appArmorProfile.type")
        if profile is not None and profile not in _PROFILES:
            yield f"{who}: appArmorProfile {profile}"
    for name, profile in metadata.get("annotations", {}).items():
        is_allowed = profile in ("", "runtime/default") or profile.startswith("localhost/")
        if name.startswith(_APPARMOR_ANNOTATION) and not is_allowed:
            yield f"{name}: {profile}"


def selinux(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for who, context in _contexts(spec):
        options = at(context, "seLinuxOptions", {})
        if options.get("type") not in _SELINUX_TYPES or options.get("user") or options.get("role"):
            yield f"{who}: seLinuxOptions {options}"


def proc_mount(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    """Restricted's rule, which is baseline's without its exception for user namespaces."""
    for container in _containers(spec):
        if at(container, "securityContext.procMount", "Default") != "Default":
            yield f"{container['name']}: procMount"


def seccomp_set_to_unconfined(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for who, context in _contexts(spec):
        profile = at(context, "seccompProfile.type")
        if profile is not None and profile not in _PROFILES:
            yield f"{who}: seccompProfile {profile}"


def sysctls(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for each in at(spec, "securityContext.sysctls", []):
        if each["name"] not in _SYSCTLS:
            yield f"sysctl {each['name']}"


# --- restricted, beyond baseline


def volume_types(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for volume in spec.get("volumes", []):
        # One that says nothing is an emptyDir.
        if volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']}: {sorted(volume.keys() - {'name'})}"


def privilege_escalation(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for container in _containers(spec):
        if at(container, "securityContext.allowPrivilegeEscalation", True) is not False:
            yield f"{container['name']}: allowPrivilegeEscalation"


def running_as_root(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    of_pod = at(spec, "securityContext.runAsNonRoot")
    for container in _containers(spec):
        if at(container, "securityContext.runAsNonRoot", of_pod) is not True:
            yield f"{container['name']}: runAsNonRoot"


def user_zero(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for who, context in _contexts(spec):
        if context.get("runAsUser") == 0:
            yield f"{who}: runAsUser 0"


def seccomp_not_set(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    of_pod = at(spec, "securityContext.seccompProfile.type")
    for container in _containers(spec):
        if at(container, "securityContext.seccompProfile.type", of_pod) is None:
            yield f"{container['name']}: no seccompProfile"


def capabilities_kept(_metadata: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    for container in _containers(spec):
        capabilities = at(container, "securityContext.capabilities", {})
        if "ALL" not in (capabilities.get("drop") or []):
            yield f"{container['name']}: capabilities.drop is not ALL"
        for each in set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
            yield f"{container['name']}: capabilities.add {each}"


BASELINE: Final[tuple[Rule, ...]] = (
    host_process,
    host_namespaces,
    privileged,
    capabilities_added,
    host_path_volumes,
    host_ports,
    host_of_probes_and_hooks,
    apparmor,
    selinux,
    proc_mount,
    seccomp_set_to_unconfined,
    sysctls,
)
RESTRICTED: Final[tuple[Rule, ...]] = (
    volume_types,
    privilege_escalation,
    running_as_root,
    user_zero,
    seccomp_not_set,
    capabilities_kept,
)


def _containers(spec: dict[str, Any]) -> list[Any]:
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def _contexts(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the security contexts of the pod and its containers, and whose each is."""
    yield "pod", spec.get("securityContext") or {}
    for container in _containers(spec):
        yield container["name"], container.get("securityContext") or {}
