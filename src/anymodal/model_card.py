"""Model cards: what a registered model is, was made from, reaches, and must not be used for.

A card is Markdown, made from the model's own files and from what the stages wrote (`Known`); it
says of what is not known that it is not, and gives the same text for the same inputs.
`anymodal.registry` adds which version it is of and keeps it with the version.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anymodal.classification import SINGLE
from anymodal.dataset.clips import read_clips
from anymodal.encoders.base import MODALITIES
from anymodal.model_card_text import (
    THINGS,
    Known,
    data_section,
    encoders_section,
    interval,
    joined,
    limits_section,
    pairing_section,
    section,
    spread,
    table,
    uses_section,
)
from anymodal.model_card_trust import trust_section
from anymodal.report import wording
from anymodal.run_metrics import of_retrieval
from anymodal.storage import read_json
from anymodal.workspace import Workspace

FILE = "README.md"
"""The card's name in a model's folder; no part of what the model does."""
_TRAINED_ON = {"zero-shot": "the other modality alone", "all": "all labelled rows"}
_PROTOCOLS = {
    "within": "the same sources",
    "matched": "the same sources, as few rows",
    "across": "other sources",
}


def known(
    workspace: Workspace,
    pair: str,
    *,
    retrieval: bool = False,
    results: bool = False,
    across: bool = False,
) -> Known:
    """What the workspace has on a pair's models: dataset and training, and of later stages what is
    named. A caller names those alone whose results are up to date."""

    sources: dict[str, dict[str, int]] = {}
    if workspace.clips.is_file():
        clips = read_clips(workspace.clips)
        for modality in MODALITIES:
            counts = clips.loc[clips[modality].notna(), "source"].value_counts()
            sources[modality] = {str(name): int(n) for name, n in sorted(counts.items())}
    return Known(
        dataset=_optional(workspace.dataset),
        sources=sources,
        training=_optional(workspace.training(pair)),
        retrieval=_optional(workspace.retrieval(pair), retrieval),
        results=_optional(workspace.classification / "results.json", results),
        judged=_optional(workspace.judge, results),
        across=_optional(workspace.across / "across.json", across),
    )


def _optional(path: Path, wanted: bool = True) -> Any:
    return read_json(path) if wanted and path.is_file() else {}


def classifier_card(folder: Path, about: Known | None = None) -> str:
    """The card of the classifier saved in `folder`."""
    meta = read_json(folder / "model.json")
    header = read_json(folder / "projection" / "projection.json")
    facts, classes = meta["facts"], meta["classes"]
    about = (about or Known()).of(facts.get("pair"))
    pair = " + ".join(meta["encoders"][m]["name"] for m in MODALITIES)
    return joined(
        f"# Instrument classifier: {pair}",
        f"Names the instrument in a sound, a picture or a film, whichever is at hand: one of "
        f"{len(classes)} classes ({', '.join(classes)}), or `unknown`. A frozen encoder turns each "
        "modality into a vector, a translation takes both vectors into one joint space of "
        f"{header['dim']} dimensions, and a random forest there answers for either.",
        uses_section(
            "Sorting recordings and photographs that show or sound one of these instruments; "
            "studying what labels of one modality say about the other.",
            "Telling whether something is one of these instruments at all (it says `unknown` of "
            "what is unlike its training rows, but names many an instrument that it never met), "
            "several instruments at once, or decisions about people.",
        ),
        limits_section(facts.get("pairing"), about),
        pairing_section(facts.get("pairing")),
        section(
            "How to load",
            '```python\nimport mlflow, pandas as pd\n\nmodel = mlflow.pyfunc.load_model("models:/'
            'anymodal-classifier@champion")\nmodel.predict(pd.DataFrame({"content": '
            '[open("photo.jpg", "rb").read()]}))\n```',
            "```sh\nanymodal predict photo.jpg sound.wav film.mp4 --model "
            "models:/anymodal-classifier@champion\n```",
        ),
        _classification(about.results, facts),
        trust_section(_optional(folder / "judge.json"), about.judged),
        _across(about.across),
        data_section(facts.get("dataset"), about, facts.get("train_rows")),
        encoders_section(meta["encoders"]),
        section(
            "Training",
            f"Seed {facts.get('seed', header['seed'])}. "
            + _forest_words(about.results)
            + _settings(header["settings"]),
        ),
    )


def translation_card(folder: Path, about: Known | None = None) -> str:
    """The card of the translation saved in `folder`."""
    about = about or Known()
    header = read_json(folder / "projection.json")
    pair = " + ".join(header["encoders"][m]["name"] for m in MODALITIES)
    return joined(
        f"# Translation: {pair}",
        "Takes embeddings of sounds and of pictures into one joint space, in which what belongs "
        f"together lies close: {header['encoders']['audio']['dim']} and "
        f"{header['encoders']['image']['dim']} values in, {header['dim']} out, of length 1.",
        uses_section(
            "Finding pictures by sounds and sounds by pictures; letting a classifier that was "
            "trained on one modality work on the other.",
            "Embeddings of other encoders, or of the same ones in another version: the vectors "
            "mean nothing to it, and loading refuses them.",
        ),
        limits_section(header["pairing"], about),
        pairing_section(header["pairing"]),
        section(
            "How to load",
            '```python\nimport mlflow, pandas as pd\n\nmodel = mlflow.pyfunc.load_model("models:/'
            'anymodal-translation@champion")\nmodel.predict(pd.DataFrame({"modality": ["audio"], '
            '"embedding": [vector]}))\n```',
            "A registered classifier holds the translation that it was trained with.",
        ),
        _retrieval(about.retrieval),
        data_section(about.retrieval.get("dataset"), about, None),
        encoders_section(header["encoders"]),
        section("Training", _losses(about.training, header) + _settings(header["settings"])),
    )


def _classification(results: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    score = facts.get("validation_macro_f1")
    validated = "" if score is None else f" Its macro F1 on validation rows is {score:.3f}."
    if not results:
        told = "Not measured on test rows."
        if study := facts.get("tuned_by"):
            told += f" It comes from the search {study}, which reads validation rows alone."
        return section("Results", told + validated)
    ends = {(o["system"], o["regime"], o["target"]): o for o in results.get("intervals", ())}
    rows, seeds = [], 0
    for row in results["summary"]:
        one = ends.get((row["system"], row["regime"], row["target"]), {})
        seeds = max(seeds, row["seeds"])
        rows.append(
            (
                row["system"], _trained_on(row), THINGS[row["target"]], spread(row),
                interval(one), f"{row['chance']:.3f}", row["train_rows"], row["test_rows"],
            )
        )  # fmt: skip
    shares = [
        f"With a forest that saw no {THINGS[target]}, MMT reaches {100 * one['share']:.0f} % "
        f"({100 * one['low']:.0f} to {100 * one['high']:.0f} %) of the best score on them "
        f"({one['best_system']})."
        for target, one in results.get("zero_shot_share", {}).items()
        if one["share"] is not None and one["low"] is not None
    ]
    compared = [
        f"- {THINGS[o['target']].capitalize()}: {' '.join(o['first'])} against "
        f"{' '.join(o['second'])}: {o['difference']:+.3f} ({o['low']:+.3f} to {o['high']:+.3f}), "
        f"Holm's p = {o['p_holm']:.2g}"
        for o in results.get("comparisons", ())
        if o["first"][0] == "MMT" and None not in (o["low"], o["p_holm"])
    ]
    return section(
        "Results",
        f"Macro F1 on the test rows, {wording.spread_words(seeds)}; 95 % intervals over the test "
        "rows' recordings. SMA and SMI are trained on one modality, MMT in the translated space, "
        "MMP in PCA's.",
        table(
            ("system", "trained on", "tested on", "macro F1", "95 % interval", "chance",
             "train rows", "test rows"), rows,
        ),
        " ".join(shares),
        f"This model is MMT trained on all labelled rows, of the {wording.plural(seeds, 'seed')} "
        f"the one that is best on validation rows.{validated}",
        "\n".join(compared),
    )  # fmt: skip


def _trained_on(row: Mapping[str, Any]) -> str:
    if row["system"] in SINGLE.values():
        return f"labelled {THINGS[row['target']]}"
    return _TRAINED_ON[row["regime"]]


def _across(across: Mapping[str, Any]) -> str:
    if not across:
        return ""
    lines, rows = [], []
    for target, found in across["targets"].items():
        for protocol, reason in found["missing"].items():
            lines.append(f"{THINGS[target]}, {_PROTOCOLS.get(protocol, protocol)}: {reason}")
        for one in found.get("scores", ()):
            if one["system"] == "MMT":
                rows.append(
                    (
                        THINGS[target], _TRAINED_ON[one["regime"]],
                        _PROTOCOLS.get(one["protocol"], one["protocol"]), spread(one),
                        interval(one), f"{found['chance']:.3f}", found["sources"],
                    )
                )  # fmt: skip
    told = [f"Not measured: {'; '.join(lines)}."] if lines else []
    if rows:
        told += [
            "MMT by cross-validation, with training rows from the sources that the test rows are "
            "from, and from others only: what a new collection may expect.",
            table(
                ("tested on", "trained on", "training rows from", "macro F1", "95 % interval",
                 "chance", "sources"), rows,
            ),
        ]  # fmt: skip
    return section("Across sources", *told) if told else ""


def _retrieval(scores: Mapping[str, Any]) -> str:
    if not scores:
        return section("Results", "Retrieval was not measured yet when this was written.")
    metrics = of_retrieval(scores).metrics
    rows = []
    for name, of in (
        ("translated", "ndcg"), ("PCA", "ndcg_pca"), ("chance", "ndcg_random"),
        ("untranslated", "ndcg_untranslated"),
    ):  # fmt: skip
        if f"{of}/mean" in metrics:
            cells = []
            for way in ("audio_to_image", "image_to_audio", "mean"):
                sd = metrics.get(f"{of}_sd/{way}")
                spread = "" if sd is None else f" ± {sd:.3f}"
                cells.append(f"{metrics[f'{of}/{way}']:.3f}{spread}")
            rows.append((name, *cells))
    seeds = len(scores["translation"])
    return section(
        "Results",
        f"NDCG@{scores['top_k']} of retrieval among {scores['n_audio']} sounds and "
        f"{scores['n_image']} pictures of {scores['dataset']} that no training saw, "
        f"{wording.spread_words(seeds)}. This model is the seed with the lowest validation loss.",
        table(("space", "sounds find pictures", "pictures find sounds", "mean"), rows),
    )


def _forest_words(results: Mapping[str, Any]) -> str:
    if not results:
        return ""
    named = ("trees", "max_depth", "min_leaf", "max_features")
    told = ", ".join(f"{name} {results[name]}" for name in named if name in results)
    return f"Random forest: {told}. "


def _losses(training: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    told = f"Seed {header['seed']}. "
    for one in training.get("seeds", ()):
        if one["seed"] == header["seed"]:
            told += (
                f"Stopped after epoch {one['epochs']}, best in {one['best_epoch']} (validation "
                f"loss {one['valid_loss']:.4f}), {training['pairs_per_epoch']:,} pairs an epoch. "
            )
    return told


def _settings(settings: Mapping[str, Any]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"Translation: {told}."
