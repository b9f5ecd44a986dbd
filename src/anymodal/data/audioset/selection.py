"""Draws the paper's three subsets from AudioSet's segment lists (paper, section 3.1, table 2).

Who qualifies: segments with a label below "Musical instrument", "Singing" or "Tools" in the
ontology. These three labels themselves do not count: the paper asks for a descendant.

Class: that of the paper's 19 labels ("Violin, fiddle" is violin, "Choir" voice, "Drum" and "Drum
kit" drums) if a segment carries those of just one class, else none. Labels below the 19 do not
count: timpani lie under "Drum", bass guitar under "Guitar".

1. Segments shorter than a second are skipped; of every video one segment is kept at random.
2. Classification is drawn first, as its classes are the rarest: `per_class` videos of each class,
   then each class's reserve, as far as there is one.
3. Retrieval and translation are drawn uniformly from all the rest, then their reserves.
4. Every video gives one second, at a random millisecond of its segment, and one frame within it.

Every choice is a hash of seed, purpose and segment alone (`numbers`): the order of the rows does
not matter, a larger subset contains the smaller one, and a few segments more or less change few
places, so that media fetched for one plan serve the next.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pandas as pd

from anymodal.config.params import AudioSetParams
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.data.audioset.lists import SegmentList
from anymodal.data.audioset.plan import (
    ACCOUNT_COLUMNS,
    COLUMNS,
    Plan,
    as_read,
    tidy_account,
    validate_plan,
)
from anymodal.ontology.graph import ontology
from anymodal.ontology.instruments import INSTRUMENTS, of_labels

ROOTS = ("Musical instrument", "Singing", "Tools")
"""The labels whose descendants qualify a segment."""
ORDER = ("classification", "retrieval", "translation")
"""Subsets in the order in which they are drawn."""

_LEAST = {"classification": 3, "retrieval": 1, "translation": 2}
_OTHER = len(INSTRUMENTS)
"""Number of what has none or several of the classes, whose numbers are 0 to 17."""
_UNUSED = -1


@cache
def qualifying_mids() -> frozenset[str]:
    """The labels that qualify a segment; what to give `read_segments` as `keep_mids`."""
    known = ontology()
    below = (known.descendants(known.mid(root), include_self=False) for root in ROOTS)
    return frozenset().union(*below) - {known.mid(root) for root in ROOTS}


def numbers(seed: int, purpose: str, segments: np.ndarray) -> np.ndarray:
    """A number for each of `segments` (n,), strings; uint64 (n,), independent for each purpose."""
    key = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).hexdigest()
    return pd.util.hash_array(segments, hash_key=key, categorize=False)


def fractions(seed: int, purpose: str, segments: np.ndarray) -> np.ndarray:
    """The same as fractions from 0 to below 1, float64 (n,)."""
    return (numbers(seed, purpose, segments) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def select(
    segments: SegmentList, params: AudioSetParams, seed: int, allow_short: bool = False
) -> Plan:
    """Draw a plan; the same segments, parameters and seed give the same plan, row for row.

    Raises `AnymodalError` that names everything that is short. With `allow_short` classification
    takes as many of each class as the smallest class has, the rest is divided between retrieval
    and translation in the ratio of what they ask for, and only a class or subset with
    nothing for one of its splits is refused. A short reserve is noted in the account.
    """
    videos, counts = _videos(segments, seed)
    names, everything = videos["segment"].to_numpy(), np.arange(len(videos))
    of_class = [np.flatnonzero(videos["instrument"] == number) for number in range(_OTHER)]
    wanted = {subset: getattr(params, subset) for subset in ORDER[1:]}
    wanted["classification"] = params.per_class
    asked = wanted | {"classification": min(params.per_class, *map(len, of_class))}
    reserves = {subset: int(np.ceil(params.reserve * asked[subset])) for subset in ORDER}
    turn = {subset: numbers(seed, subset, names) for subset in ORDER}

    def take(among: np.ndarray, subset: str, count: int, reserve: bool = False) -> None:
        drawn = among[np.argsort(turn[subset][among], kind="stable")][:count]
        videos.loc[drawn, "subset"] = ORDER.index(subset)
        videos.loc[drawn, "reserve"] = reserve
        videos.loc[drawn, "rank"] = np.arange(len(drawn))

    def left(among: np.ndarray = everything) -> np.ndarray:
        return among[videos["subset"].to_numpy()[among] == _UNUSED]

    for members in of_class:
        take(members, "classification", asked["classification"])
        take(left(members), "classification", reserves["classification"], reserve=True)

    available = {"classification": everything, "retrieval": left()}
    rest, total = len(available["retrieval"]), asked["retrieval"] + asked["translation"]
    short = {
        name: (len(members), params.per_class)
        for name, members in zip(INSTRUMENTS, of_class, strict=True)
        if len(members) < params.per_class
    }
    if rest < total:
        short["retrieval and translation"] = (rest, total)
        asked["retrieval"] = rest * asked["retrieval"] // total
        asked["translation"] = rest - asked["retrieval"]
    if short:
        _refuse_short(short, asked, allow_short)
    take(available["retrieval"], "retrieval", asked["retrieval"])
    available["translation"] = left()
    take(available["translation"], "translation", asked["translation"])
    for subset in ORDER[1:]:
        take(left(), subset, reserves[subset], reserve=True)

    table = _table(segments.table, videos, params, asked, seed)
    account = _account(videos, available, wanted, reserves)
    return Plan(validate_plan(as_read(table)), account, counts)


def _videos(segments: SegmentList, seed: int) -> tuple[pd.DataFrame, dict[str, int]]:
    """One segment of every qualified video: row (of the list), segment (its name), instrument
    (number), subset, reserve and rank; and the counts on the way there."""
    table = segments.table
    sets = [name.split(",") for name in table["labels"].cat.categories]
    codes = table["labels"].cat.codes.to_numpy()
    qualified = np.array([not qualifying_mids().isdisjoint(each) for each in sets], dtype=bool)
    names = pd.Index(INSTRUMENTS).get_indexer(pd.Index([of_labels(each) for each in sets]))
    instrument = np.where(names < 0, _OTHER, names)

    start, end = table["start_s"].to_numpy(), table["end_s"].to_numpy()
    chosen = qualified[codes] if len(sets) else np.zeros(0, dtype=bool)
    counts = {"segments": segments.read, "qualified": int(chosen.sum())}
    chosen = chosen & (
        _milliseconds(end, down=True) - _milliseconds(start) >= WINDOW_SECONDS * 1000
    )
    rows = np.flatnonzero(chosen)
    counts["long_enough"] = len(rows)
    listed = table.iloc[rows].reset_index(drop=True)
    times = listed[["start_s", "end_s"]].astype("str")
    videos = listed[["video_id"]].assign(
        row=rows,
        segment=listed["video_id"].str.cat(times, sep=" ").astype(object),
        instrument=instrument[codes[rows]],
        subset=_UNUSED,
        reserve=False,
        rank=0,
    )
    turn = np.argsort(numbers(seed, "segment", videos["segment"].to_numpy()), kind="stable")
    videos = videos.iloc[turn].drop_duplicates("video_id").sort_values("row", ignore_index=True)
    counts["videos"] = len(videos)
    return videos, counts


def _refuse_short(
    short: dict[str, tuple[int, int]], asked: dict[str, int], allow_short: bool
) -> None:
    counts = ", ".join(f"{name} {have:,} of {want:,}" for name, (have, want) in short.items())
    if not allow_short:
        raise AnymodalError(
            f"the segment lists are too short: {counts}; give more lists, ask for less in "
            "params.yaml (audioset), or use what there is with --allow-short"
        )
    empty = [subset for subset in ORDER if asked[subset] < _LEAST[subset]]
    if empty:
        raise AnymodalError(
            f"the segment lists leave too little for {', '.join(empty)}: {counts}; give more lists"
        )


def _milliseconds(seconds: np.ndarray, down: bool = False) -> np.ndarray:
    """Whole milliseconds, up unless `down`; rounding errors of floats are ignored."""
    scaled = seconds * 1000
    near = np.rint(scaled)
    rounded = np.floor(scaled) if down else np.ceil(scaled)
    return np.where(np.abs(scaled - near) < 1e-3, near, rounded).astype(np.int64)


def _table(
    listed: pd.DataFrame,
    videos: pd.DataFrame,
    params: AudioSetParams,
    asked: dict[str, int],
    seed: int,
) -> pd.DataFrame:
    drawn = videos[videos["subset"] != _UNUSED]
    of_class = drawn["instrument"].where(drawn["subset"] == 0, 0)
    order = np.lexsort((drawn["rank"], of_class, drawn["reserve"], drawn["subset"]))
    drawn = drawn.iloc[order]
    names = drawn["segment"].to_numpy()
    segments = listed.iloc[drawn["row"]].reset_index(drop=True)

    sets = pd.Series([name.split(",") for name in segments["labels"].cat.categories], dtype=object)
    length = int(WINDOW_SECONDS * 1000)
    earliest = _milliseconds(segments["start_s"].to_numpy())
    choices = _milliseconds(segments["end_s"].to_numpy(), down=True) - length - earliest + 1
    window = earliest + np.floor(fractions(seed, "window", names) * choices).astype(np.int64)
    frame = window + np.floor(fractions(seed, "frame", names) * length).astype(np.int64)

    table = segments.assign(
        labels=sets.iloc[segments["labels"].cat.codes].to_numpy(),
        instrument=np.array([*INSTRUMENTS, None], dtype=object)[drawn["instrument"]],
        subset=np.array(ORDER, dtype=object)[drawn["subset"]],
        split=_splits(drawn, params, asked),
        role=np.where(drawn["reserve"], "reserve", "wanted"),
        rank=drawn["rank"].to_numpy(),
        window_s=window / 1000,
        frame_s=frame / 1000,
    )
    return table.loc[:, list(COLUMNS)]


def _splits(drawn: pd.DataFrame, params: AudioSetParams, asked: dict[str, int]) -> np.ndarray:
    """Split by subset and rank: ranks are random, so that the first of them may test."""
    subset, rank = drawn["subset"].to_numpy(), drawn["rank"].to_numpy()
    split = np.full(len(subset), "train", dtype=object)
    size = asked["classification"]
    test = min(max(1, round(size * params.classification_test)), size - 2)
    valid = min(max(1, round(size * params.classification_valid)), size - 1 - test)
    classified = subset == ORDER.index("classification")
    split[classified & (rank < test + valid)] = "valid"
    split[classified & (rank < test)] = "test"
    split[subset == ORDER.index("retrieval")] = "test"
    size = asked["translation"]
    valid = min(max(1, round(size * params.translation_valid)), size - 1)
    split[(subset == ORDER.index("translation")) & (rank < valid)] = "valid"
    split[drawn["reserve"].to_numpy()] = None
    return split


def _account(
    videos: pd.DataFrame,
    available: dict[str, np.ndarray],
    wanted: dict[str, int],
    reserves: dict[str, int],
) -> pd.DataFrame:
    """See `plan.Plan.account`. available: positions of the videos left at a subset's turn."""
    labels = (*INSTRUMENTS, "other", "all")

    def per_class(rows: np.ndarray | pd.Series) -> np.ndarray:
        counts = np.bincount(videos["instrument"].to_numpy()[rows], minlength=_OTHER + 1)
        return np.append(counts, counts.sum())

    lines: list[tuple[object, ...]] = []
    for number, subset in enumerate(ORDER):
        mine, reserve = videos["subset"] == number, videos["reserve"]
        # only classification asks for something of each class
        share = [1] * _OTHER + [0, _OTHER] if number == 0 else [0] * _OTHER + [0, 1]
        counts = [per_class(rows) for rows in (available[subset], mine & ~reserve, mine & reserve)]
        for label, times, had, taken, spare in zip(labels, share, *counts, strict=True):
            missing, unreserved = wanted[subset] * times - taken, reserves[subset] * times - spare
            note = f"{missing:,} short" if missing > 0 else ""
            if unreserved > 0:
                note += f"{'; ' if note else ''}reserve {unreserved:,} short"
            want = wanted[subset] * times if times else None
            lines.append((subset, label, want, had, taken, spare, note))
    unused = per_class(videos["subset"] == _UNUSED)
    for label, count in zip(labels, unused, strict=True):
        lines.append(("unused", label, None, count, count, 0, ""))
    return tidy_account(pd.DataFrame(lines, columns=list(ACCOUNT_COLUMNS)))
