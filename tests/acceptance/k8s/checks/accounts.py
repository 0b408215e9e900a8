"""Who may do what: bindings name roles and accounts, and only pods with a role have a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.acceptance.k8s.manifests import Cluster, Pod, Resource, everything_at

#: Roles that every cluster has; a Role with its namespace.
_BUILT_IN: Final = {
    ("ClusterRole", "", "system:auth-delegator"),
    ("ClusterRole", "", "view"),
    ("Role", "kube-system", "extension-apiserver-authentication-reader"),
}
_API_GROUP: Final = "rbac.authorization.k8s.io"
#: Pods that have a token without a role, and why.
_TOKEN_WITHOUT_ROLE: Final = {
    ("kubernetes-dashboard", "headlamp"),  # finds the API server's certificate beside it
}


def bindings_name_roles_that_are_there(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("ClusterRoleBinding", "RoleBinding"):
        kind, name = each.data["roleRef"]["kind"], each.data["roleRef"]["name"]
        namespace = "" if kind == "ClusterRole" else each.namespace
        if (kind, namespace, name) not in _BUILT_IN and not cluster.find(kind, name, namespace):
            yield f"{each} names the {kind} {name}, which is not there"


def bindings_are_of_this_api(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("ClusterRoleBinding", "RoleBinding"):
        kinds = {subject["kind"] for subject in each.data.get("subjects", [])}
        groups = {each.data["roleRef"].get("apiGroup")}
        if not kinds or kinds - {"Group", "ServiceAccount", "User"} or groups != {_API_GROUP}:
            yield f"{each} binds {sorted(kinds)} to a role of {groups}"


def bindings_name_accounts_that_are_there(cluster: Cluster) -> Iterator[str]:
    for each in cluster.of("ClusterRoleBinding", "RoleBinding"):
        for subject in _accounts(each):
            is_of_kubernetes = subject["namespace"] == "kube-system"
            found = cluster.find("ServiceAccount", subject["name"], subject["namespace"])
            if not found and not (is_of_kubernetes and each.is_foreign):
                yield f"{each} names the account {subject['name']}, which is not there"


def tokens_are_for_pods_with_a_role(cluster: Cluster) -> Iterator[str]:
    bound = {
        (subject["namespace"], subject["name"])
        for binding in cluster.of("ClusterRoleBinding", "RoleBinding")
        for subject in _accounts(binding)
    }
    for pod in cluster.pods:
        has_role = (pod.namespace, pod.service_account) in bound
        is_known = (pod.namespace, pod.owner.name) in _TOKEN_WITHOUT_ROLE
        if has_token(cluster, pod) != (has_role or is_known):
            yield f"{pod.owner} has {'a role' if has_role else 'no role'}, and a token is otherwise"


def our_roles_name_what_they_need(cluster: Cluster) -> Iterator[str]:
    """No wildcards, and nothing by which one becomes somebody else."""
    refused = {"*", "nodes/proxy", "impersonate", "escalate", "bind", "pods/exec"}
    for each in cluster.of("ClusterRole", "Role"):
        for rule in [] if each.is_foreign else each.data.get("rules", []):
            words = {word for values in rule.values() for word in values}
            if words & refused:
                yield f"{each} may {sorted(words & refused)}"


def has_token(cluster: Cluster, pod: Pod) -> bool:
    """Return whether a pod gets a token for Kubernetes' API."""
    account = cluster.find("ServiceAccount", pod.service_account, pod.namespace)
    of_account = account.data.get("automountServiceAccountToken") if account else None
    said = pod.spec.get("automountServiceAccountToken", of_account)
    is_projected = any(everything_at(pod.spec.get("volumes", []), "serviceAccountToken"))
    return said is not False or is_projected


def _accounts(binding: Resource) -> list[Any]:
    subjects = binding.data.get("subjects", [])
    return [each for each in subjects if each["kind"] == "ServiceAccount"]


CHECKS: Final = (
    bindings_name_roles_that_are_there,
    bindings_are_of_this_api,
    bindings_name_accounts_that_are_there,
    tokens_are_for_pods_with_a_role,
    our_roles_name_what_they_need,
)
