"""The commands' common options and context."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli import console

if TYPE_CHECKING:
    from anymodal.evaluation.classification import ClassificationResult
    from anymodal.pipeline.context import Context

ParamsFile = Annotated[
    Path, typer.Option("--params", help="Parameters file; its folder is the project.")
]
PARAMS = Path("params.yaml")


def context_of(path: Path) -> Context:
    """The project whose parameters file is `path`."""
    from anymodal.config.params import load_params
    from anymodal.core.workspace import Workspace
    from anymodal.encoders.weights.locations import use_weights_dir
    from anymodal.pipeline.context import Context

    params = load_params(path)
    use_weights_dir(params.embed.weights_dir, path.parent)
    return Context(Workspace(path.parent), params, console.progress, console.err.print)


def print_scores(result: ClassificationResult) -> None:
    """Print the classifiers' scores with what they rest on."""

    console.table(
        f"Macro F1 on {result.dataset} ({result.pairing}-paired), {result.pair}, "
        f"{len(result.classes)} classes",
        ["system", "regime", "tested on", "macro F1", "chance", "seeds", "train", "test"],
        [
            (
                score.system,
                score.regime,
                score.target,
                f"{score.mean:.3f} ± {score.std:.3f}",
                f"{score.chance:.3f}",
                score.seeds,
                score.train_rows,
                score.test_rows,
            )
            for score in result.summary
        ],
    )
