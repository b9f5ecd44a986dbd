"""Draws the paper's three subsets from AudioSet's segment lists (paper, section 3.1, table 2).

Who qualifies
-------------
Segments with at least one label that lies under "Musical instrument", "Singing" or "Tools" in the
ontology. These three labels themselves do not count: the paper asks for a descendant, and a clip
that says no more than "Musical instrument" has no label left for the relevance of section 3.3. Of
the balanced list 4,246 segments of 22,160 qualify (4,654 if the three counted).

Which class a segment has
-------------------------
That of the paper's 19 labels ("Violin, fiddle" is violin, "Choir" voice, "Drum" and "Drum kit"
drums) if it carries those of just one class, else none: "samples labeled only once from the above
categories are selected". What lies under the 19 does not count, neither as the class nor against
it. It is the literal reading, and descendants would bring other things in: timpani, tabla and drum
machine lie under "Drum", bass guitar under "Guitar", and pizzicato of any bowed instrument under
"Violin, fiddle". Where a narrower label means the class, the lists mostly carry both: nine in ten
segments of the unbalanced list that have a label under "Guitar" have "Guitar" itself.

How it is drawn
---------------
1. Segments too short for a second of sound are left out, and one segment of every video is kept,
   by chance: subsets are disjoint by video, and no video serves twice.
2. Classification first, since its classes are the rarest: `per_class` videos of each class. Then
   each class's reserve, as far as there is one.
3. Retrieval and translation, uniformly from all the rest. Nothing is balanced there: the skew of
   Fig. 6 is that of the lists, less what classification took. Then their reserves, from what is
   left.
4. In every video, one second at a random millisecond of the segment, and one frame within it.

Every choice is a number made from seed, purpose and segment (`hashing`): the order of the rows
does not matter, a larger subset contains the smaller one, and a video's moment is the same in
whichever subset it serves.

Where the lists fall short
--------------------------
An `AnymodalError` names everything that is short, or, with `allow_short`: the classification subset
stays balanced, as the paper wants it, so that the smallest class rules the size of all; what
retrieval and translation can have is divided in the ratio of what they ask for. A short reserve is
only noted in the account.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from anymodal.config.params import AudioSetParams
from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.account import ORDER, OTHER, make_account
from anymodal.data.audioset.hashing import ID_LENGTH, fractions, numbers, segment_words
from anymodal.data.audioset.lists import SegmentList
from anymodal.data.audioset.plan import COLUMNS, WINDOW_S, Plan, tidy_table, validate_plan
from anymodal.ontology.graph import ontology
from anymodal.ontology.instruments import INSTRUMENTS, of_labels

ROOTS = ("Musical instrument", "Singing", "Tools")
"""The labels whose descendants qualify a segment."""

_LEAST = {"classification": 3, "retrieval": 1, "translation": 2}


@cache
def qualifying_mids() -> frozenset[str]:
    """The labels that qualify a segment; what to give `read_segments` as `keep_mids`."""
    known = ontology()
    below = (known.descendants(known.mid(root), include_self=False) for root in ROOTS)
    return frozenset().union(*below) - {known.mid(root) for root in ROOTS}


@dataclass(frozen=True)
class _Videos:
    """What is drawn from: one segment of every qualified video."""

    rows: np.ndarray
    """Row of the list's table, int64 (videos,)."""
    words: np.ndarray
    """As `hashing.segment_words`, uint64 (4, videos)."""
    instrument: np.ndarray
    """Place in `INSTRUMENTS`, or `OTHER`, int64 (videos,)."""
    counts: dict[str, int]


@dataclass
class _Draw:
    """State of a draw: `subset` (place in `ORDER`, −1 for none), `reserve` and `rank` (videos,)."""

    subset: np.ndarray
    reserve: np.ndarray
    rank: np.ndarray

    def take(self, videos: np.ndarray, subset: str, reserve: bool) -> None:
        self.subset[videos] = ORDER.index(subset)
        self.reserve[videos] = reserve
        self.rank[videos] = np.arange(len(videos))

    def left(self) -> np.ndarray:
        return np.flatnonzero(self.subset < 0)


def select(
    segments: SegmentList, params: AudioSetParams, seed: int, allow_short: bool = False
) -> Plan:
    """Draw a plan; the same segments, parameters and seed give the same plan, row for row.

    `AnymodalError` where the lists are too short (see the module's text), and, whatever
    `allow_short` says, where a class or subset has nothing for one of its splits.
    """
    videos = _videos(segments, seed)
    turn = {subset: numbers(seed, subset, videos.words) for subset in ORDER}
    draw = _Draw(
        np.full(len(videos.rows), -1),
        np.zeros(len(videos.rows), dtype=bool),
        np.zeros_like(videos.rows),
    )
    of_class = [
        _in_turn(np.flatnonzero(videos.instrument == place), turn["classification"])
        for place in range(OTHER)
    ]
    size = min(params.per_class, *map(len, of_class))
    asked = {
        "classification": size,
        "retrieval": params.retrieval,
        "translation": params.translation,
    }
    reserves = {subset: int(np.ceil(params.reserve * asked[subset])) for subset in ORDER}
    for members in of_class:
        draw.take(members[:size], "classification", False)
        draw.take(members[size : size + reserves["classification"]], "classification", True)

    left = draw.left()
    total = asked["retrieval"] + asked["translation"]
    short = {
        name: (len(members), params.per_class)
        for name, members in zip(INSTRUMENTS, of_class, strict=True)
        if len(members) < params.per_class
    }
    if len(left) < total:
        short["retrieval and translation"] = (len(left), total)
        asked["retrieval"] = len(left) * asked["retrieval"] // total
        asked["translation"] = len(left) - asked["retrieval"]
    if short:
        _refuse_short(short, asked, allow_short)

    available = {"classification": videos.instrument, "retrieval": videos.instrument[left]}
    draw.take(_in_turn(left, turn["retrieval"])[: asked["retrieval"]], "retrieval", False)
    left = draw.left()
    available["translation"] = videos.instrument[left]
    draw.take(_in_turn(left, turn["translation"])[: asked["translation"]], "translation", False)
    for subset in ("retrieval", "translation"):
        draw.take(_in_turn(draw.left(), turn[subset])[: reserves[subset]], subset, True)

    table = _table(segments.table, videos, draw, params, asked, seed)
    wanted = {subset: getattr(params, subset) for subset in ORDER[1:]}
    account = make_account(
        videos.instrument,
        draw.subset,
        draw.reserve,
        available,
        {"classification": params.per_class} | wanted,
        reserves,
    )
    return Plan(validate_plan(tidy_table(table)), account, videos.counts)


def _videos(segments: SegmentList, seed: int) -> _Videos:
    table = segments.table
    labels = table["labels"].cat
    sets = [tuple(name.split(",")) for name in labels.categories]
    qualifying = qualifying_mids()
    qualified = np.array([not qualifying.isdisjoint(each) for each in sets], dtype=bool)
    places = {name: place for place, name in enumerate(INSTRUMENTS)}
    classes = [of_labels(each) for each in sets]
    instrument = np.array([OTHER if name is None else places[name] for name in classes], int)

    codes = labels.codes.to_numpy()
    start, end = table["start_s"].to_numpy(), table["end_s"].to_numpy()
    chosen = qualified[codes] if len(sets) else np.zeros(0, dtype=bool)
    counts = {"segments": segments.read, "qualified": int(chosen.sum())}
    chosen = chosen & (_milliseconds(end, down=True) - _milliseconds(start) >= WINDOW_S * 1000)
    rows = np.flatnonzero(chosen)
    counts["long_enough"] = len(rows)
    identifiers = np.array(table["video_id"].iloc[rows].tolist(), dtype=f"S{ID_LENGTH}")
    words = segment_words(identifiers, start[rows], end[rows])
    order = np.lexsort((numbers(seed, "segment", words), words[1], words[0]))
    again = (words[:2, order][:, 1:] == words[:2, order][:, :-1]).all(axis=0)
    first = np.sort(order[np.concatenate([[True], ~again])]) if len(order) else order
    counts["videos"] = len(first)
    return _Videos(rows[first], words[:, first], instrument[codes[rows[first]]], counts)


def _in_turn(videos: np.ndarray, turn: np.ndarray) -> np.ndarray:
    return videos[np.argsort(turn[videos], kind="stable")]


def _refuse_short(
    short: dict[str, tuple[int, int]], asked: dict[str, int], allow_short: bool
) -> None:
    told = ", ".join(f"{name} {there:,} of {wanted:,}" for name, (there, wanted) in short.items())
    if not allow_short:
        raise AnymodalError(
            f"the segment lists are too short: {told}; give more lists, ask for less in "
            "params.yaml (audioset), or go on with what there is by --allow-short"
        )
    empty = [subset for subset in ORDER if asked[subset] < _LEAST[subset]]
    if empty:
        raise AnymodalError(
            f"the segment lists leave too little for {', '.join(empty)}: {told}; give more lists"
        )


def _milliseconds(seconds: np.ndarray, down: bool = False) -> np.ndarray:
    """Whole milliseconds, up unless `down`; what a float lacks of one is forgiven."""
    scaled = seconds * 1000
    near = np.rint(scaled)
    rounded = np.floor(scaled) if down else np.ceil(scaled)
    return np.where(np.abs(scaled - near) < 1e-3, near, rounded).astype(np.int64)


def _table(
    listed: pd.DataFrame,
    videos: _Videos,
    draw: _Draw,
    params: AudioSetParams,
    asked: dict[str, int],
    seed: int,
) -> pd.DataFrame:
    drawn = np.flatnonzero(draw.subset >= 0)
    of_class = np.where(draw.subset == 0, videos.instrument, 0)
    keys = (draw.rank[drawn], of_class[drawn], draw.reserve[drawn], draw.subset[drawn])
    drawn = drawn[np.lexsort(keys)]
    rows, words = videos.rows[drawn], videos.words[:, drawn]
    subset, rank = draw.subset[drawn], draw.rank[drawn]

    start, end = listed["start_s"].to_numpy()[rows], listed["end_s"].to_numpy()[rows]
    length = int(WINDOW_S * 1000)
    earliest = _milliseconds(start)
    choices = _milliseconds(end, down=True) - length - earliest + 1
    window = earliest + np.floor(fractions(seed, "window", words) * choices).astype(np.int64)
    frame = window + np.floor(fractions(seed, "frame", words) * length).astype(np.int64)

    labels = listed["labels"].cat
    sets = np.empty(len(labels.categories), dtype=object)
    for place, name in enumerate(labels.categories):
        sets[place] = name.split(",")
    names = np.array([*INSTRUMENTS, None], dtype=object)
    split = _splits(subset, rank, params, asked)
    split[draw.reserve[drawn]] = None
    table = pd.DataFrame(
        {
            "video_id": listed["video_id"].iloc[rows].to_numpy(),
            "start_s": start,
            "end_s": end,
            "labels": sets[labels.codes.to_numpy()[rows]],
            "instrument": names[videos.instrument[drawn]],
            "subset": np.array(ORDER, dtype=object)[subset],
            "split": split,
            "role": np.where(draw.reserve[drawn], "reserve", "wanted"),
            "rank": rank,
            "moment_s": window / 1000,
            "frame_s": frame / 1000,
        }
    )
    return table.loc[:, list(COLUMNS)]


def _splits(
    subset: np.ndarray, rank: np.ndarray, params: AudioSetParams, asked: dict[str, int]
) -> np.ndarray:
    """Split by subset and rank: ranks are random, so that the first of them may test."""
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
    return split
