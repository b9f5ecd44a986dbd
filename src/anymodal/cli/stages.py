"""The commands of the stages: one a stage, of its name.

Each imports what it needs when it is called, so that `anymodal --help` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from anymodal.cli_context import PARAMS, ParamsFile, context_of, print_scores
from anymodal.errors import AnymodalError

if TYPE_CHECKING:
    from anymodal.stages.base import Context

app = typer.Typer()

AudioEncoder = Annotated[str, typer.Option("--audio", help="Audio encoder; default: all.")]
ImageEncoder = Annotated[str, typer.Option("--image", help="Image encoder; default: all.")]


@app.command()
def dataset(params: ParamsFile = PARAMS) -> None:
    """Read the source's clips and draw the three disjoint subsets."""
    from anymodal import console
    from anymodal.stages.dataset import dataset as stage

    account = stage(context_of(params))
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

    report = stage(context_of(params))
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

    reports = stage(context_of(params))
    measured = any(r.precision_error is not None for r in reports)
    console.table(
        "Embeddings",
        ["encoder", "embedded", "reused", "failed", "seconds"]
        + ["error against float32"] * measured,
        [
            [r.encoder, r.embedded, r.reused, r.failed, f"{r.seconds:.1f}"]
            + ["" if r.precision_error is None else f"{r.precision_error:.2%}"] * measured
            for r in reports
        ],
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

    context = context_of(params)
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

    context = context_of(params)
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

    ranking = stage(context_of(params))
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

    context = context_of(params)
    stage(context)
    print_scores(context)


@app.command()
def mixing(params: ParamsFile = PARAMS) -> None:
    """Mix rows of the target modality in bit by bit, many draws a point; resumes."""
    from anymodal import console
    from anymodal.stages.mixing import mixing as stage
    from anymodal.stages.mixing import summarise_curve

    context = context_of(params)
    points = {
        (row["target"], row["samples"], row["system"]): f"{row['mean']:.3f} ± {row['std']:.3f}"
        for row in summarise_curve(stage(context)).to_dict("records")
    }
    console.table(
        f"Macro F1 by rows of the target mixed in ({context.params.mixing.draws} draws)",
        ["tested on", "rows", "MMT", "MMP"],
        [
            (target, samples, *(points[target, samples, s] for s in ("MMT", "MMP")))
            for target, samples in dict.fromkeys(key[:2] for key in points)
        ],
    )


@app.command()
def structure(params: ParamsFile = PARAMS) -> None:
    """Measure where the classes lie in the joint space, and what goes with a class's F1."""
    from anymodal import console
    from anymodal.stages.structure import structure as stage

    told = stage(context_of(params))

    def shown(value: float | None) -> str:
        return "undefined" if value is None else f"{value:.3f}"

    spaces = [("PCA", told["pca"])]
    spaces += [(f"translated, seed {one['seed']}", one) for one in told["translated"]]
    console.table(
        f"Structure of {told['pair']} on {told['dataset']} ({told['pairing']}-paired; "
        f"{told['test_rows']['audio']} sounds, {told['test_rows']['image']} pictures)",
        ["space", "same / different", "sounds by pictures", "pictures by sounds", "chance"],
        [
            (
                name,
                *(shown(one[k]) for k in ("ratio", "audio_to_image", "image_to_audio", "chance")),
            )
            for name, one in spaces
        ],
    )


@app.command()
def across(params: ParamsFile = PARAMS) -> None:
    """Test the systems within sources and across sources, by cross-validation; resumes."""
    from anymodal import console
    from anymodal.stages.across import across as stage

    told = stage(context_of(params))
    for target, found in told["targets"].items():
        things = {"audio": "sounds", "image": "pictures"}[target]
        for left in found.get("left_out", ()):
            console.out.print(
                f"{left['rows']} {things} of {left['instrument']} left out: {left['reason']}"
            )
        for protocol, reason in found["missing"].items():
            console.out.print(f"{things}, {protocol}: not measured, {reason}")
        scores: list[dict[str, Any]] = found.get("scores", [])
        if not scores:
            continue
        shown = {(o["system"], o["regime"], o["protocol"]): o for o in scores}
        measured = list(dict.fromkeys(o["protocol"] for o in scores))
        console.table(
            f"Macro F1 on {things} of {told['dataset']} ({told['pairing']}-paired, {told['pair']}; "
            f"{found['test_rows']} rows, {found['groups']} recordings, {found['sources']} "
            f"source{'s' * (found['sources'] != 1)}; {len(found['classes'])} classes, chance "
            f"{found['chance']:.3f}; {told['seeds']} seeds, 95 % over recordings)",
            ["system", "trained on", *measured],
            [
                (system, regime, *(_with_interval(shown[system, regime, p]) for p in measured))
                for system, regime in dict.fromkeys((o["system"], o["regime"]) for o in scores)
            ],
        )


@app.command()
def report(params: ParamsFile = PARAMS) -> None:
    """Write the report page."""
    from anymodal import console
    from anymodal.stages.report import report as stage

    console.out.print(f"report: {stage(context_of(params))}")


def _with_interval(score: dict[str, Any]) -> str:
    ends = ""
    if score["low"] is not None:
        ends = f" ({score['low']:.2f} to {score['high']:.2f})"
    return f"{score['mean']:.3f} ± {score['std']:.3f}{ends}"


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


def _spread(values: list[float]) -> str:
    import numpy as np

    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"
