"""``cmbprep-tools``: what goes with the program, one sub-command each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cmbprep import __version__
from cmbprep.cli.guard import private_caches, run_guarded

__all__ = ["build_parser", "main"]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the ``cmbprep-tools`` command."""
    # Light modules: what they need is imported when a sub-command runs.
    from cmbprep.lab.evaluate import command as evaluate
    from cmbprep.lab.simulate import command as simulate
    from cmbprep.lab.training import command as train

    parser = argparse.ArgumentParser(
        prog="cmbprep-tools", description="Tools that go with cmbprep."
    )
    parser.add_argument("--version", action="version", version=f"cmbprep {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    for name, module, text in (
        ("simulate", simulate, "write a BIDS dataset with known, simulated microbleeds"),
        ("evaluate", evaluate, "compare results with the truth, lesion by lesion"),
        (
            "train",
            train,
            "make the learned detector's model anew, or that of brain masks",
        ),
    ):
        command = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "simulate a small dataset, run both levels on it, and say where the reports are"
    command = commands.add_parser("demo", help=text, description=f"{text.capitalize()}.")
    command.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("cmbprep-demo"),
        metavar="DIR",
        help="where the demo goes (default: %(default)s)",
    )
    command.add_argument("--nprocs", type=int, metavar="N", help="processes at a time")
    command.set_defaults(run=_run_demo)


def _run_demo(arguments: argparse.Namespace) -> int:
    from cmbprep.lab.demo import run_demo

    return run_demo(arguments.folder, nprocs=arguments.nprocs)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; return its exit status, as ``cmbprep`` does."""

    def run() -> int:
        arguments = build_parser().parse_args(argv)
        with private_caches():
            return int(arguments.run(arguments))

    return run_guarded("cmbprep-tools", run)


if __name__ == "__main__":
    sys.exit(main())
