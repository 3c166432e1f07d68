"""``cmbprep-tools``: what goes with the program, one sub-command each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from cmbprep import __version__
from cmbprep.cli.guard import private_caches, run_guarded
from cmbprep.lab.shared import add_options, read_data


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the ``cmbprep-tools`` command, as ``options.json`` describes it.

    A command without options there declares them in its module, which must be a light one.
    """
    parser = argparse.ArgumentParser(
        prog="cmbprep-tools", description="Tools that go with cmbprep."
    )
    parser.add_argument("--version", action="version", version=f"cmbprep {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in read_data("cmbprep.lab", "options.json").items():
        text = about["help"]
        description = about.get("description", f"{text.capitalize()}.")
        command = commands.add_parser(name, help=text, description=description)
        if "options" in about:
            add_options(command, about["options"])
        else:
            import_module(about["module"]).add_arguments(command)
        command.set_defaults(run=partial(_run, about["module"]))
    return parser


def _run(module: str, arguments: argparse.Namespace) -> int:
    """Import the module of a sub-command, which may be slow, and run it."""
    return int(import_module(module).run(arguments))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; return its exit status, as ``cmbprep`` does."""

    def run() -> int:
        arguments = build_parser().parse_args(argv)
        with private_caches():
            return int(arguments.run(arguments))

    return run_guarded("cmbprep-tools", run)


if __name__ == "__main__":
    sys.exit(main())
