"""The commands of ``scripts/cluster``, each a function. All may raise CommandError."""

from __future__ import annotations

import sys
from typing import Final

from devtools import progress
from devtools.commands import CommandError
from devtools.kind_cluster import context, found, plan, preflight
from devtools.kind_cluster.answers import read
from devtools.kind_cluster.credentials import Credentials
from devtools.kind_cluster.diagnosis import diagnosis
from devtools.kind_cluster.manifests import Manifests
from devtools.kind_cluster.names import CHECKOUT, CLUSTER, DASHBOARD, LAMBDA, kind, kubectl
from devtools.kind_cluster.plan import Wish
from devtools.kind_cluster.runner import run_steps, script
from devtools.kind_cluster.status import NONE_READY, status
from devtools.kind_cluster.steps import Command, Step
from devtools.kind_cluster.summary import summary
from devtools.kind_cluster.switch import Refused

_DELETE_S: Final = 300.0
_NOTHING: Final = f"There is no kind cluster {CLUSTER}. Start with: scripts/cluster up"


def show(wish: Wish) -> None:
    """Print what a first ``up`` would run, as a script."""
    steps = plan.plan(wish, found.Found(), Credentials.masked(), _manifests())
    print("# What `up` runs where there is no cluster yet. Secrets are masked.")
    print(script(steps))


def up(wish: Wish) -> None:
    """Bring the cluster up, and all that is in it."""
    manifests = _manifests()
    _check(manifests)
    nodes = found.nodes()
    _refuse(context.problem(has_cluster=bool(nodes)))
    if not nodes:
        run_steps([plan.create(manifests)])
        _refuse(context.problem(has_cluster=True))
    there = found.look()
    secret = Credentials.complete(there.secrets)
    steps = plan.install(wish, there, secret, manifests)
    _run(steps, secret)
    print(summary(wish.choice(there), manifests))


def down() -> None:
    """Delete the cluster, if there is one."""
    if not found.nodes():
        print(f"  There is no kind cluster {CLUSTER}.")
        return
    _refuse(context.problem_of_deletion())
    command = Command(argv=kind("delete", "cluster"), limit_s=_DELETE_S)
    run_steps([Step(title="Cluster", actions=(command,), result="deleted")])


def restart() -> None:
    """Replace the pods of functions and server."""
    there = _look()
    _run(plan.restart(each for each in there.workloads if each.namespace == LAMBDA))


def push() -> None:
    """Bring our images into the registry, and replace the pods that use them."""
    manifests = _manifests()
    there = _look()
    _refuse("\n".join(preflight.unbuilt_images(manifests)))
    _run([plan.push(manifests), *plan.restart(plan.users_of_images(there, manifests))])


def show_status() -> int:
    """Print how the cluster is; return the exit status."""
    if not found.nodes():
        print(_NOTHING)
        return NONE_READY
    code, lines = status(_look(), _manifests())
    print("\n".join(lines))
    return code


def token() -> None:
    """Print a token for the dashboard, and nothing else."""
    _check_there()
    print(read(kubectl("-n", DASHBOARD, "create", "token", "admin-user")).strip())


def _manifests() -> Manifests:
    return Manifests.read(CHECKOUT)


def _check(manifests: Manifests) -> None:
    with progress.Step("Tools, ports and images") as step:
        problems = preflight.problems(manifests)
        if problems:
            raise Refused("\n".join(problems))
        step.result("all there")


def _look() -> found.Found:
    _check_there()
    return found.look()


def _check_there() -> None:
    if not found.nodes():
        raise Refused(_NOTHING)
    _refuse(context.problem(has_cluster=True))


def _refuse(problem: str | None) -> None:
    if problem:
        raise Refused(problem)


def _run(steps: list[Step], secret: Credentials | None = None) -> None:
    """Run ``steps``; where one fails, tell what is wrong in the cluster as well."""
    try:
        run_steps(steps, secret.hidden if secret else ())
    except CommandError as error:
        print(error, *diagnosis(), sep="\n", file=sys.stderr)
        raise SystemExit(1) from None
