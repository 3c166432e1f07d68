"""The command ``cmbprep-tools train --model brain``: makes the brain-mask network anew."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbprep.errors import UsageError
from cmbprep.lab.shared import read_data
from cmbprep.lab.training.log import logger

if TYPE_CHECKING:
    from cmbprep.lab.training.brain.fitting import BrainFitOptions


def run_brain(args: argparse.Namespace) -> int:
    """Run ``train --model brain`` with parsed arguments; give the exit status.

    Raises
    ------
    UsageError
        If the arguments are wrong or PyTorch is not installed.
    """
    pairs = _pairs(args.masked)
    if args.heads < 0 or args.steps < 1 or args.heads + len(pairs) < 1:
        raise UsageError("training needs one head or more, and one step or more")
    if len(args.source) not in (0, len(pairs)):
        raise UsageError("give one --source for each image of --masked, or none")
    if not args.samples_only:
        need_torch()
    from cmbprep.lab.training.brain.heads import make_heads

    args.dest.mkdir(parents=True, exist_ok=True)
    say = logger(args.dest / "brain.log")
    paths = make_heads(args.dest / "heads", args.heads, pairs, say)
    if not args.samples_only:
        _fit(args, paths, say)
    return 0


def _pairs(images: list[Path]) -> list[tuple[Path, Path]]:
    pairs = []
    for image in images:
        name, marker, _ = image.name.partition("_image.nii")
        mask = image.with_name(image.name.replace("_image.nii", "_mask.nii"))
        if not name or not marker or not image.is_file():
            raise UsageError("there is no image NAME_image.nii.gz there", path=image)
        if not mask.is_file():
            raise UsageError("there is no brain mask of this image", path=mask)
        pairs.append((image, mask))
    return pairs


def _fit(args: argparse.Namespace, paths: list[Path], say: Any) -> None:
    from cmbprep.brain.network import MODEL
    from cmbprep.lab.training.brain.fitting import BrainFitOptions, fit_brain_network
    from cmbprep.lab.training.brain.heads import load_head
    from cmbprep.lab.training.brain.network import BrainNetwork, brain_to_onnx
    from cmbprep.outputs.files import write_json

    heads = [load_head(path) for path in paths]
    simulated = [head for head in heads if head.image is None]
    real = [head for head in heads if head.image is not None]
    options = BrainFitOptions(
        steps=args.steps,
        seed=args.seed,
        real_share=0.0 if not real else BrainFitOptions.real_share if simulated else 1.0,
    )
    names = [path.name.partition("_image.nii")[0] for path in args.masked]
    sources = dict(zip(names, args.source or ["not stated"] * len(names), strict=True))

    def keep(network: BrainNetwork) -> None:
        content = brain_to_onnx(network)
        (args.dest / f"{MODEL}.onnx").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        card = brain_card(digest, len(simulated), sources, options)
        write_json(args.dest / f"{MODEL}.json", card)

    say(f"fitting to {len(simulated)} simulated and {len(real)} real heads")
    keep(fit_brain_network(simulated, real, options, say, keep))


def brain_card(
    sha256: str, simulated: int, real: dict[str, str], options: BrainFitOptions
) -> dict[str, Any]:
    """Make the card of the brain-mask network.

    Parameters
    ----------
    sha256
        Of the model's file.
    simulated
        Number of simulated heads.
    real
        Names of the real heads, and where they come from.
    options
        Of the fit.
    """
    from cmbprep.brain.network import SPACING
    from cmbprep.lab.training.brain.heads import SIMULATED_SEED

    content: dict[str, Any] = read_data("cmbprep.lab.training", "cards.json")["brain"]
    seeds = {"heads": SIMULATED_SEED, "fit": options.seed}
    content["data"] |= {"simulated_heads": simulated, "real_heads": real, "seeds": seeds}
    if not real:
        content["data"]["reference_masks"] = "none"
    fit = {"steps": options.steps, "rate": options.rate}
    return content | {"sha256": sha256, "fit": fit, "spacing_mm": SPACING}


def need_torch() -> None:
    """Raise UsageError if PyTorch is not installed."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "training needs PyTorch, which is not installed",
            hint="install cmbprep[train], or give --samples-only",
        ) from error
