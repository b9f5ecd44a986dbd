"""AudioSet on this machine: from the segment lists to a folder that the pipeline reads.

    <out>/plan.json         what the plan was drawn from: lists, seed, parameters
    <out>/plan.parquet      which second of which video serves what (`data.audioset.plan`)
    <out>/ledger.jsonl      the status of every clip that was tried
    <out>/shards/*.tar      the clips
    <out>/clips.parquet     the clip table: written last, when all clips are there
    <out>/quality.parquet   levels, contrasts and origins of the clips (`data.quality`)
    <out>/audioset.json     what was drawn, fetched and lost, with versions and digests

Every step resumes where an earlier run stopped. A run whose lists, seed or parameters differ from
plan.json is refused, so that no folder mixes two plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from anymodal import __version__
from anymodal.config.params import Params
from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import file_digest
from anymodal.core.storage import read_json, write_json
from anymodal.data.audioset.downloader import Downloader
from anymodal.data.audioset.fetch import fetch_plan, make_downloader
from anymodal.data.audioset.lists import FILES, published_lists, read_segments
from anymodal.data.audioset.plan import Plan, read_plan, write_plan
from anymodal.data.audioset.results import FetchReport, clips_of, rebalance
from anymodal.data.audioset.selection import qualifying_mids, select
from anymodal.data.audioset.shards import trace
from anymodal.data.clips import write_clips
from anymodal.data.quality import measure, read_quality
from anymodal.pipeline.context import Context
from anymodal.tracking.runs import DatasetRef, StageRun, stage_run

NAME = "audioset"
PLAN = "plan.parquet"
PLAN_BASIS = "plan.json"
CLIPS = "clips.parquet"
QUALITY = "quality.parquet"
FACTS = "audioset.json"

SELECTION = (
    "translation",
    "retrieval",
    "per_class",
    "translation_valid",
    "classification_valid",
    "classification_test",
    "reserve",
)
"""Parameters that a plan depends on."""
MEDIA = ("height", "short_side", "jpeg_quality")
"""Parameters that a fetched clip depends on; the others say how, not what, is fetched."""

Show = Callable[[str, pd.DataFrame], None]
"""Takes a title and a table for people."""


def acquire(
    context: Context,
    lists: Path,
    out: Path,
    *,
    local: Path | None = None,
    allow_short: bool = False,
    plan_only: bool = False,
    replan: bool = False,
    show: Show = lambda title, table: None,
    downloader: Downloader | None = None,
) -> pd.DataFrame | None:
    """Draw from the segment lists in `lists`, fetch into `out`; return the clip table.

    local: folder of videos to use instead of YouTube. allow_short: use what there is, balanced,
    where classes or subsets are short. plan_only: draw, fetch nothing and return None. replan: draw
    again where the folder has a plan of other lists or parameters; clips in both plans are kept.
    downloader: another source of videos.

    Raises `AnymodalError` where something is missing or short; what was fetched is kept.
    """
    params = context.params
    lists, out = Path(lists), Path(out)
    files = published_lists(lists)
    names = sorted(path.name.removesuffix(".gz") for path in files)
    if absent := [name for name in FILES if name not in names]:
        context.say(f"{lists} has no {', '.join(absent)}; drawing from the other lists")
    plan = make_plan(context, files, out, allow_short=allow_short, replan=replan)
    show(f"Drawn from {', '.join(path.name for path in files)}", _shown_plan(plan))
    if plan_only:
        return None
    source = downloader or make_downloader(params.audioset, local)
    with stage_run(NAME, params, DatasetRef(NAME, "clip", out / CLIPS)) as run:
        run.log_params({"lists": ",".join(names), "from": source.name})
        run.log_table(plan.account.astype(object), "drawn")
        with context.progress("fetch AudioSet") as advance:
            report = fetch_plan(plan.table, source, out, params.audioset, advance)
        show("Fetched", _shown_fetch(report))
        causes = ", ".join(f"{name} {count:,}" for name, count in report.causes.items())
        context.say(f"{report.fetched:,} fetched in this run; all clips: {causes or 'none'}")
        _log(run, report)
        _refuse(report, out, allow_short)
        clips, dropped = clips_of(plan.table, out, params.audioset), 0
        if report.account["short"].any():
            clips, dropped = rebalance(clips)
            context.say(
                f"{int(report.account['short'].sum()):,} clips are missing; {dropped:,} more of "
                "the classification subset are dropped to keep its classes balanced"
            )
        with context.progress("measure the clips") as advance:
            measure(
                clips,
                out,
                read_quality(out / QUALITY),
                tracer=trace,
                progress=advance,
                save=out / QUALITY,
            )
        write_clips(out / CLIPS, clips)
        write_json(out / FACTS, _facts(out, plan, report, clips, dropped))
        run.log_dataset(clips, DatasetRef(NAME, "clip", out / CLIPS), "all")
        run.log_metrics({"rows/both": len(clips), "rows/dropped": dropped})
        run.log_file(out / FACTS)
    return clips


def make_plan(
    context: Context,
    files: Sequence[Path],
    out: Path,
    *,
    allow_short: bool = False,
    replan: bool = False,
) -> Plan:
    """The plan in `out` if it is of these lists and parameters; a new one if there is none, or with
    `replan`."""
    params = context.params
    now = _basis(params, files)
    if (out / PLAN_BASIS).is_file() and (out / PLAN).is_file():
        before = read_json(out / PLAN_BASIS)
        _refuse_other_media(before, now, out)
        changed = _changed(before, now)
        if not changed:
            return read_plan(out / PLAN)
        if not replan:
            raise AnymodalError(
                f"{out} holds a plan with other settings ({'; '.join(changed)}); restore them, "
                "use another folder, or draw again with --replan"
            )
    elif (out / PLAN).is_file() and not replan:
        raise AnymodalError(
            f"{out / PLAN} has no {PLAN_BASIS} with its settings; draw again with --replan (clips "
            "that are in the new plan are kept)"
        )
    segments = read_segments(files, qualifying_mids())
    if segments.problems.counts:
        context.say(segments.problems.summary())
    plan = select(segments, params.audioset, params.seed, allow_short)
    # in this order: a run killed in between leaves no settings without their plan
    for name in (FACTS, CLIPS, PLAN_BASIS):
        (out / name).unlink(missing_ok=True)
    write_plan(out / PLAN, plan)
    write_json(out / PLAN_BASIS, now)
    return plan


def _basis(params: Params, files: Sequence[Path]) -> dict[str, Any]:
    settings = params.audioset.model_dump(mode="json")
    return {
        "lists": {path.name: file_digest(path) for path in files},
        "seed": params.seed,
        "selection": {name: settings[name] for name in SELECTION},
        "media": {name: settings[name] for name in MEDIA},
    }


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings that differ from those of the plan."""
    changes = []
    if before.get("seed") != now["seed"]:
        changes.append(f"seed {before.get('seed')} → {now['seed']}")
    for name, value in now["selection"].items():
        if (was := before.get("selection", {}).get(name)) != value:
            changes.append(f"audioset.{name} {was} → {value}")
    was, lists = before.get("lists", {}), now["lists"]
    names = sorted(name for name in {*was, *lists} if was.get(name) != lists.get(name))
    return changes + [f"another {name}" for name in names]


def _refuse_other_media(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    for name, value in now["media"].items():
        if (was := before.get("media", {}).get(name)) != value:
            raise AnymodalError(
                f"the clips in {out} were made with audioset.{name} {was}, not {value}; use "
                "another folder, or set it back"
            )


def _refuse(report: FetchReport, out: Path, allow_short: bool) -> None:
    """Raise if the run is not complete, or short of what was asked for and that is not allowed."""
    if report.stopped:
        raise AnymodalError(f"{report.stopped}; what was fetched is kept in {out}")
    account = report.account
    short = account[account["short"] > 0]
    if short.empty or allow_short:
        return
    names = short["instrument"].where(short["instrument"].notna(), short["subset"])
    sums = short.groupby(names, sort=False)[["fetched", "wanted"]].sum()
    counts = [
        f"{name} {row['fetched']:,} of {row['wanted']:,}" for name, row in list(sums.iterrows())[:6]
    ]
    if failed := int(short["failed"].sum()):
        remedy = f"{failed:,} failed for temporary reasons: run the same command again"
    else:
        remedy = "raise audioset.reserve and draw again with --replan"
    raise AnymodalError(
        f"short of clips (in splits with a shortage: {', '.join(counts)}"
        f"{', …' if len(sums) > len(counts) else ''}); {remedy}, or use what there is with "
        "--allow-short"
    )


def _log(run: StageRun, report: FetchReport) -> None:
    summary = report.summary()
    run.log_table(report.account.astype(object), "fetched")
    numbers = ("wanted", "fetched", "dead", "replaced", "failed", "short", "dead_share", "tiny")
    run.log_metrics({f"fetch/{name}": summary[name] for name in numbers})
    run.log_metrics({f"causes/{name}": count for name, count in report.causes.items()})


def _facts(
    out: Path, plan: Plan, report: FetchReport, clips: pd.DataFrame, dropped: int
) -> dict[str, Any]:
    basis = read_json(out / PLAN_BASIS)
    return {
        "name": NAME,
        "pairing": "clip",
        "anymodal": __version__,
        **basis,
        "counts": plan.counts,
        "fetch": report.summary(),
        "dropped": dropped,
        "rows": len(clips),
    }


def _shown_plan(plan: Plan) -> pd.DataFrame:
    account = plan.account[plan.account["subset"] != "unused"]
    return account[(account["instrument"] == "all") | (account["subset"] == "classification")]


def _shown_fetch(report: FetchReport) -> pd.DataFrame:
    """The account by subset and class."""
    account = report.account.assign(instrument=report.account["instrument"].fillna("all"))
    sums = account.drop(columns="split").groupby(["subset", "instrument"], as_index=False).sum()
    total = {"subset": "all", "instrument": "all", **sums.sum(numeric_only=True).to_dict()}
    return pd.concat([sums, pd.DataFrame([total])], ignore_index=True)
