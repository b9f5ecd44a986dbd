"""What the commands share: their options, and the context that they work in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anymodal.errors import AnymodalError

if TYPE_CHECKING:
    from anymodal.stages.base import Context

ParamsFile = Annotated[
    Path, typer.Option("--params", help="Parameters file; its folder is the project.")
]
PARAMS = Path("params.yaml")


def context_of(path: Path) -> Context:
    """The project whose parameters file is `path`."""
    from anymodal import console
    from anymodal.encoders.weights import use_weights_dir
    from anymodal.params import load_params
    from anymodal.stages.base import Context
    from anymodal.workspace import Workspace

    params = load_params(path)
    use_weights_dir(params.embed.weights_dir, path.parent)
    return Context(Workspace(path.parent), params, console.progress, console.err.print)


def print_scores(context: Context) -> None:
    """Print the classifiers' scores with what they rest on."""
    from anymodal import console
    from anymodal.storage import read_json

    path = context.workspace.classification / "results.json"
    if not path.is_file():
        raise AnymodalError(f"no {path}; run `anymodal classify` first")
    told: dict[str, Any] = read_json(path)
    console.table(
        f"Macro F1 on {told['dataset']} ({told['pairing']}-paired), {told['pair']}, "
        f"{len(told['classes'])} classes",
        ["system", "regime", "tested on", "macro F1", "chance", "seeds", "train", "test"],
        [
            (
                row["system"],
                row["regime"],
                row["target"],
                f"{row['mean']:.3f} ± {row['std']:.3f}",
                f"{row['chance']:.3f}",
                row["seeds"],
                row["train_rows"],
                row["test_rows"],
            )
            for row in told["summary"]
        ],
    )
