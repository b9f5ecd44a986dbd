"""The command line: one command a stage, plus run, pack and predict.

Each command imports what it needs when it is called, so that `anymodal --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anymodal import __version__
from anymodal.errors import AnymodalError

if TYPE_CHECKING:
    import pandas as pd

    from anymodal.stages.base import Context

app = typer.Typer(
    name="anymodal",
    help="Music classifiers that take whatever modality is at hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ParamsFile = Annotated[
    Path, typer.Option("--params", help="Parameters file; its folder is the project.")
]
AudioEncoder = Annotated[str, typer.Option("--audio", help="Audio encoder; default: all.")]
ImageEncoder = Annotated[str, typer.Option("--image", help="Image encoder; default: all.")]
PARAMS = Path("params.yaml")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Music classifiers that take whatever modality is at hand."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def dataset(params: ParamsFile = PARAMS) -> None:
    """Read the source's clips and draw the three disjoint subsets."""
    from anymodal import console
    from anymodal.stages.dataset import dataset as stage

    account = stage(_context(params))
    account["part"] = (account["subset"] + " " + account["split"]).str.strip()
    counts = account.pivot_table(
        index=["instrument", "modality"], columns="part", values="taken", aggfunc="sum"
    )
    parts = sorted(counts.columns, key=lambda part: (part == "unused", part))
    console.table(
        "Clips drawn",
        ["instrument", "modality", *parts],
        [
            (*names, *("-" if not n > 0 else int(n) for n in row))
            for names, row in zip(counts.index.to_list(), counts[parts].to_numpy(), strict=True)
        ],
    )
    reasons = account[(account["subset"] == "unused") & (account["taken"] > 0)]
    for note, lines in reasons.groupby("note"):
        names = ", ".join(sorted(set(lines["instrument"].dropna())))
        console.out.print(f"{lines['taken'].sum()} clips unused: {note} ({names})")


@app.command()
def check(params: ParamsFile = PARAMS) -> None:
    """Check the clip table: schema, balance, disjointness, pairing."""
    from anymodal import console
    from anymodal.stages.check import check as stage

    report = stage(_context(params))
    console.table(
        "Data checks",
        ["check", "result", "what was seen"],
        [(r.name, "ok" if r.success else r.severity, r.message) for r in report.results],
    )


@app.command()
def embed(params: ParamsFile = PARAMS) -> None:
    """Embed every clip with every encoder; resumes where it was stopped."""
    from anymodal import console
    from anymodal.stages.embed import embed as stage

    reports = stage(_context(params))
    console.table(
        "Embeddings",
        ["encoder", "embedded", "reused", "failed", "seconds"],
        [(r.encoder, r.embedded, r.reused, r.failed, f"{r.seconds:.1f}") for r in reports],
    )
    for report in reports:
        for failure in report.failures.itertuples(index=False):
            console.err.print(f"{report.encoder}: clip {failure.clip_id} failed: {failure.error}")


@app.command()
def translate(
    audio: AudioEncoder = "", image: ImageEncoder = "", params: ParamsFile = PARAMS
) -> None:
    """Train the translation of a pair of encoders, and fit its PCA baseline."""
    from anymodal import console
    from anymodal.stages.translate import translate as stage

    context = _context(params)
    rows = []
    for pair in _pairs(context, audio, image):
        told = stage(context, *pair)
        losses = [training["valid_loss"] for training in told["seeds"]]
        epochs = [str(training["epochs"]) for training in told["seeds"]]
        rows.append((told["pair"], told["pairs_per_epoch"], _spread(losses), " ".join(epochs)))
    console.table(
        f"Translations ({told['pairing']}-paired)",
        ["pair", "pairs an epoch", "validation loss", "epochs a seed"],
        rows,
    )


@app.command()
def retrieve(
    audio: AudioEncoder = "", image: ImageEncoder = "", params: ParamsFile = PARAMS
) -> None:
    """Score cross-modal retrieval in the joint space, beside chance."""
    from anymodal import console
    from anymodal.stages.retrieve import retrieve as stage

    context = _context(params)
    baselines = {"pca": "PCA", "random": "random"}
    if context.params.retrieve.untranslated:
        baselines["untranslated"] = "untranslated"
    rows = []
    for pair in _pairs(context, audio, image):
        scores = stage(context, *pair)
        for way in ("audio_to_image", "image_to_audio"):
            rows.append(
                (
                    scores["pair"],
                    way.replace("_", " "),
                    _spread([entry[way] for entry in scores["translation"]]),
                    *(f"{scores[name][way]:.3f}" for name in baselines),
                )
            )
    console.table(
        f"NDCG@{scores['top_k']} on {scores['dataset']} ({scores['pairing']}-paired; "
        f"{scores['n_audio']} sounds, {scores['n_image']} pictures)",
        ["pair", "way", "translated", *baselines.values()],
        rows,
    )


@app.command()
def select(params: ParamsFile = PARAMS) -> None:
    """Choose the pair of encoders that retrieves best."""
    from anymodal import console
    from anymodal.stages.select import select as stage

    ranking = stage(_context(params))
    console.table(
        "Pairs by mean NDCG",
        ["pair", "mean of both ways", "audio to image", "image to audio"],
        [
            (
                entry["pair"],
                f"{entry['mean']:.4f} ± {entry['std']:.4f}",
                f"{entry['audio_to_image']:.4f}",
                f"{entry['image_to_audio']:.4f}",
            )
            for entry in ranking
        ],
    )


@app.command()
def classify(params: ParamsFile = PARAMS) -> None:
    """Train and test the four systems on the chosen pair; keep the best classifier."""
    from anymodal.stages.classify import classify as stage

    context = _context(params)
    stage(context)
    _print_scores(context)


@app.command()
def report(params: ParamsFile = PARAMS) -> None:
    """Write the report page."""
    from anymodal import console
    from anymodal.stages.report import report as stage

    console.out.print(f"report: {stage(_context(params))}")


@app.command()
def run(
    until: Annotated[str, typer.Argument(help="Stage to stop after; default: all.")] = "",
    set_: Annotated[
        list[str], typer.Option("--set", help="section.field=value; makes a DVC experiment.")
    ] = [],  # noqa: B006
    params: ParamsFile = PARAMS,
) -> None:
    """Run the pipeline with DVC under one parent MLflow run."""
    from anymodal.pipeline import run_pipeline

    overrides = [word for words in set_ for word in words.split()]
    run_pipeline(params.parent, until or None, overrides)


@app.command()
def results(params: ParamsFile = PARAMS) -> None:
    """Print the table of results and where the report lies."""
    from anymodal import console

    context = _context(params)
    _print_scores(context)
    console.out.print(f"report: {context.workspace.report}")


@app.command()
def audioset(
    lists: Annotated[Path, typer.Argument(help="Folder of AudioSet's segment lists.")],
    out: Annotated[Path, typer.Argument(help="Folder to fetch into; a rerun goes on there.")],
    local: Annotated[
        Path | None, typer.Option(help="Folder of videos that you have: nothing is downloaded.")
    ] = None,
    allow_short: Annotated[
        bool, typer.Option("--allow-short", help="Go on where a class or subset is short.")
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Draw the subsets, fetch nothing.")
    ] = False,
    replan: Annotated[
        bool, typer.Option("--replan", help="Draw anew for other lists or parameters.")
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Draw the three subsets from AudioSet's lists and fetch them; resumes where it was stopped."""
    from anymodal import console
    from anymodal.stages.acquire import acquire

    try:
        clips = acquire(
            _context(params),
            lists,
            out,
            local=local,
            allow_short=allow_short,
            plan_only=plan_only,
            replan=replan,
            show=lambda title, table: console.table(title, list(table.columns), _cells(table)),
        )
    except KeyboardInterrupt:
        console.err.print(f"stopped; what was fetched is in {out}: the same command goes on there")
        raise typer.Exit(130) from None
    if clips is None:
        console.out.print(f"{out}: the plan; the same command without --plan-only fetches it")
    else:
        counts = clips["subset"].value_counts()
        told = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
        console.out.print(f"{out}: {len(clips):,} clips ({told})")


@app.command()
def pack(
    media: Annotated[Path, typer.Argument(help="Folder of media: images/<class>, audio/<class>.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the pack to.")] = Path("data"),
    name: Annotated[str, typer.Option(help="Name of the pack.")] = "pack",
    description: Annotated[str, typer.Option(help="A sentence on what the media are.")] = "",
    params: ParamsFile = PARAMS,
) -> None:
    """Build a feature pack: embeddings that travel without their media."""
    from anymodal import console
    from anymodal.packing import build_pack

    context = _context(params)
    settings = context.params.embed
    with context.progress("pack") as advance:
        meta = build_pack(
            media,
            out,
            settings.encoders,
            context.params.dataset.windows,
            name,
            progress=lambda _step, done, total: advance(done, total),
            batch_size=settings.batch_size,
            workers=settings.workers,
            chunk=settings.chunk,
            description=description,
        )
    for skipped in meta["skipped"]:
        console.err.print(f"skipped {skipped['path']}: {skipped['reason']}")
    counts = meta["counts"]
    console.out.print(
        f"{out}: {counts['clips']} clips ({counts['audio']['clips']} of sounds, "
        f"{counts['image']['clips']} of pictures), {len(meta['encoders'])} encoders"
    )


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="Sounds and pictures, mixed.")],
    model: Annotated[
        str, typer.Option(help="Folder or MLflow URI of a classifier; default: the project's.")
    ] = "",
    top: Annotated[int, typer.Option(min=1, help="Classes to show a file.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Name the instrument in sounds and pictures.

    A file that cannot be read is told on the error output and does not stop the others; the exit
    status is then 1.
    """
    from anymodal import console
    from anymodal.model import ModalityAgnosticClassifier
    from anymodal.workspace import Workspace

    location = model or Workspace(params.parent).classifier
    classifier = ModalityAgnosticClassifier.load(location)
    answers, failures = [], []
    for file in files:
        try:
            answers += classifier.predict([file])
        except AnymodalError as error:
            failures.append({"item": str(file), "error": str(error)})
    if as_json:
        typer.echo(json.dumps([*(a.as_dict() for a in answers), *failures], indent=2))
    elif answers:
        console.table(
            f"{len(classifier.classes)} classes, chance {1 / len(classifier.classes):.2f}",
            ["file", "modality", *(f"{n + 1}." for n in range(min(top, len(classifier.classes))))],
            [(a.item, a.modality, *(f"{name} {p:.2f}" for name, p in a.top(top))) for a in answers],
        )
    for failure in failures:
        console.err.print(f"error: {failure['error']}")
    if failures:
        raise typer.Exit(1)


def main() -> None:
    """Entry point: an `AnymodalError` becomes one line and exit status 1."""
    # threads that spin while they wait bring two processes on one machine to a crawl (measured: a
    # training of 4 s took 30); OpenMP reads this when torch loads it
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except AnymodalError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def _context(path: Path) -> Context:
    from anymodal import console
    from anymodal.params import load_params
    from anymodal.stages.base import Context
    from anymodal.workspace import Workspace

    return Context(Workspace(path.parent), load_params(path), console.progress, console.err.print)


def _pairs(context: Context, audio: str, image: str) -> list[tuple[str, str]]:
    known = context.params.embed.pairs
    chosen = [p for p in known if audio in ("", p[0]) and image in ("", p[1])]
    if not chosen:
        names = ", ".join(context.params.embed.encoders)
        raise AnymodalError(
            f"params.yaml lists no pair of {audio or 'any'} and {image or 'any'}; "
            f"its encoders are: {names}"
        )
    return chosen


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """A table's values as people read them: thousands marked, nothing for null."""
    import pandas as pd

    def cell(value: object) -> str:
        if pd.isna(value):  # type: ignore[call-overload]
            return ""
        return f"{value:,}" if isinstance(value, (int, float)) else str(value)

    return [[cell(value) for value in row] for row in table.astype(object).to_numpy()]


def _spread(values: list[float]) -> str:
    import numpy as np

    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


def _print_scores(context: Context) -> None:
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
