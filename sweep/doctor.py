"""Command: `python -m sweep.doctor` tells what is wrong with a cluster, or with its file before `ray up`."""

import argparse
import sys
from pathlib import Path

import ray

from sweep import cluster_file
from sweep.nodes import Preflight, warnings
from sweep.tuning import joins_cluster, start_ray
from vae.arguments import Parser, add_results_argument
from vae.errors import UserError, exit_code


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        "python -m sweep.doctor",
        description="Looks for what would go wrong in a sweep on a cluster; each problem is a line that says what to "
        "do. On a node it asks all nodes, as every sweep does when it begins; with --cluster it reads a file.",
    )
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="a cluster file, before `ray up`")
    parser.add_argument("--address", help="of a Ray cluster (default: that of this node)")
    add_results_argument(parser)
    return parser.parse_args(argv)


def _run(args: argparse.Namespace) -> None:
    if args.cluster is not None:
        _tell(cluster_file.problems(args.cluster), f"{args.cluster}")
        return
    if not joins_cluster(args.address):
        raise UserError("no Ray cluster on this machine; pass --cluster FILE before `ray up`, or --address.")
    where = start_ray(args.address)
    try:
        found = [*Preflight(args.results).problems(), *warnings()]
        _tell(found, f"{where}, {sum(node['Alive'] for node in ray.nodes())} nodes")
    finally:
        ray.shutdown()


def _tell(problems: list[str], what: str) -> None:
    if problems:
        raise UserError("\nerror: ".join(problems))
    sys.stdout.write(f"{what}: nothing wrong found\n")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code: 2 if there are problems."""
    args = _parse(argv)
    return exit_code(lambda: _run(args))


if __name__ == "__main__":
    sys.exit(main())
