"""The command ``scripts/cluster``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from devtools.commands import CommandError
from devtools.kind_cluster import work
from devtools.kind_cluster.names import Dashboard, Scaling
from devtools.kind_cluster.plan import Wish
from devtools.kind_cluster.switch import Refused

_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Run a Lambda service on a kind cluster of its own, named lambda.

    Its kubectl context is kind-lambda; no other cluster is ever touched. Needs kind, kubectl and
    docker, and the images that `make docker` builds.
    """


@main.command()
@click.option(
    "--scaling",
    type=click.Choice([str(each) for each in Scaling]),
    help="What decides how many pods a function has.  [default: as it is, at first keda]",
)
@click.option(
    "--dashboard",
    type=click.Choice([str(each) for each in Dashboard]),
    help="What port 30000 shows.  [default: as it is, at first kubernetes]",
)
@click.option(
    "--rabbitmq-cluster",
    is_flag=True,
    help="Three RabbitMQ nodes instead of one. There is no way back but down and up.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the commands for a machine without the cluster, secrets masked; run nothing.",
)
def up(scaling: str | None, dashboard: str | None, rabbitmq_cluster: bool, dry_run: bool) -> None:
    """Start the cluster with all that is in it, and call a function once.

    Harmless when it runs already: the cluster and its passwords stay, what is missing comes back,
    and another --scaling or --dashboard takes the place of the one that is there. As kind does, a
    new cluster becomes kubectl's current context.
    """
    wish = Wish(
        scaling=Scaling(scaling) if scaling else None,
        dashboard=Dashboard(dashboard) if dashboard else None,
        has_rabbitmq_cluster=rabbitmq_cluster,
    )
    with _told():
        work.show(wish) if dry_run else work.up(wish)


@main.command()
def down() -> None:
    """Delete the cluster and everything in it, queues too. Harmless when there is none."""
    with _told():
        work.down()


@main.command()
def restart() -> None:
    """Replace the pods of functions and Lambda Server, a few at a time.

    Calls go on meanwhile, RabbitMQ and the cluster stay. For a fresh cluster: down, then up.
    """
    with _told():
        work.restart()


@main.command()
def status() -> None:
    """Tell how each component is; exits with 0 if all are ready, 1 if some are, 3 if none is."""
    with _told():
        sys.exit(work.show_status())


@main.command()
def push() -> None:
    """Push the images that `make docker` has built, and replace the pods that use them."""
    with _told():
        work.push()


@main.command()
def token() -> None:
    """Print a token to log in to the dashboard with, and nothing else."""
    with _told():
        work.token()


@contextmanager
def _told() -> Iterator[None]:
    """Tell what went wrong in words, and exit with what a shell understands."""
    try:
        yield
    except (CommandError, Refused) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted. Run it again to go on, or: scripts/cluster down", file=sys.stderr)
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main(prog_name="scripts/cluster")
