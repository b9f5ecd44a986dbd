"""Claim: two million segments are read, checked and divided into the paper's subsets in seconds, in
less time and memory than with pandas and a plain Python loop, and with the same numbers.

    python benchmarks/selection.py [--rows 2000000] [--repeats 3]

A list in the published format is made in a temporary folder: as many labels a row (2.0), qualified
rows (13 %) and repeated sets of labels as in AudioSet's unbalanced list, every class at least as
frequent as the paper's sizes need, one row in a thousand malformed. Each run has a process of its
own, so that its peak memory (ru_maxrss, which counts the imported libraries too) is its own:

* anymodal: `read_segments` and `select`, to the plan's table.
* pandas: `read_csv` with its C parser, then one loop over the rows that checks, filters and sorts
  into classes, and shuffled lists that are sliced; to the same table. The kindest of the plain
  ways: `zip` over columns, sets of labels, no `iterrows`, no malformed row that its parser would
  stumble on (such as an open quote).

The order of the draw is each one's own; what there is to draw from, and how much is drawn, must
agree.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEED = 0
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MALFORMED = (
    "{id}, 10.000, 20.000",
    'x{id}, 10.000, 20.000, "/m/0342h"',
    '{id}, ten, 20.000, "/m/0342h"',
    '{id}, 20.000, 10.000, "/m/0342h"',
    '{id}, 10.000, 20.000, "/m/0342h,"',
    '{id}, 10.000, 20.000, "/m/unknown"',
)


def label_sets(rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Sets of labels, joined by commas, and the probability of each."""
    from anymodal.data.audioset.selection import qualifying_mids
    from anymodal.ontology.graph import ontology
    from anymodal.ontology.instruments import MIDS

    known = ontology()
    qualifying = sorted(qualifying_mids())
    plain = sorted(set(known) - set(qualifying))
    sets: list[str] = []
    weights: list[np.ndarray] = []
    for pool, count, share in ((plain, 20_000, 0.87), (qualifying, 10_000, 0.112)):
        popularity = 1 / np.arange(1, len(pool) + 1) ** 0.9
        popularity = rng.permutation(popularity / popularity.sum())
        for _ in range(count):
            size = min(1 + rng.geometric(0.55), 6) - 1
            labels = set(rng.choice(pool, size=size, replace=False, p=popularity).tolist())
            for label in tuple(labels):
                # parents are mostly, not always, given beside their children
                labels |= {up for up in known.parents(label) if rng.random() < 0.3}
            sets.append(",".join(sorted(labels)))
        frequency = 1 / np.arange(1, count + 1)
        weights.append(share * frequency / frequency.sum())
    sets += [",".join(sorted((mids[0], "/m/04rlf"))) for mids in MIDS.values()]
    weights.append(np.full(len(MIDS), 0.018 / len(MIDS)))
    return sets, np.concatenate(weights)


def make(path: Path, rows: int) -> None:
    """Write a list of `rows` rows."""
    rng = np.random.default_rng(SEED)
    sets, weights = label_sets(rng)
    letters = np.frombuffer(LETTERS, "S1")
    with path.open("w", encoding="ascii") as file:
        file.write("# Segments csv made for a benchmark\n# no real videos\n")
        file.write("# YTID, start_seconds, end_seconds, positive_labels\n")
        for first in range(0, rows, 100_000):
            count = min(100_000, rows - first)
            ids = letters[rng.integers(0, 64, size=(count, 11))].view("S11")[:, 0].astype(str)
            starts = np.where(rng.random(count) < 0.5, 30, rng.integers(0, 60, count) * 10)
            picks = rng.choice(len(sets), size=count, p=weights)
            bad = rng.random(count) < 0.001
            file.writelines(
                (
                    MALFORMED[start // 10 % len(MALFORMED)].format(id=name) + "\n"
                    if wrong
                    else f'{name}, {start}.000, {start + 10}.000, "{sets[pick]}"\n'
                )
                for name, start, pick, wrong in zip(
                    ids, starts.tolist(), picks.tolist(), bad.tolist(), strict=True
                )
            )


def ours(path: str) -> dict[str, Any]:
    """What was read and drawn."""
    from anymodal.config.params import AudioSetParams
    from anymodal.data.audioset.lists import read_segments
    from anymodal.data.audioset.selection import qualifying_mids, select

    segments = read_segments(path, qualifying_mids())
    plan = select(segments, AudioSetParams(), SEED)
    account = plan.account
    of_class = account.loc[account["subset"] == "classification", "available"]
    return {
        "read": segments.read,
        "malformed": segments.problems.counts.total(),
        "videos": plan.counts["videos"],
        "of class": of_class.tolist()[:18],
        "drawn": len(plan.table),
    }


def peer(path: str) -> dict[str, Any]:
    """The same with pandas and a loop."""
    import pandas as pd

    from anymodal.config.params import AudioSetParams
    from anymodal.data.audioset.selection import qualifying_mids
    from anymodal.ontology.graph import ontology
    from anymodal.ontology.instruments import MIDS

    params = AudioSetParams()
    known, qualifying = frozenset(ontology()), qualifying_mids()
    class_of = {mid: name for name, mids in MIDS.items() for mid in mids}
    valid_id = re.compile("[A-Za-z0-9_-]{11}").fullmatch
    table = pd.read_csv(
        path,
        skiprows=3,
        names=["id", "start", "end", "labels"],
        skipinitialspace=True,
        on_bad_lines="skip",
        dtype={"id": str, "labels": str},
    )
    start = pd.to_numeric(table["start"], errors="coerce")
    end = pd.to_numeric(table["end"], errors="coerce")
    read = malformed = 0
    videos: dict[str, tuple[float, float, list[str], str | None]] = {}
    for name, begin, stop, text in zip(table["id"], start, end, table["labels"], strict=True):
        labels = text.split(",") if isinstance(text, str) else [""]
        if not (valid_id(name) and stop > begin and known.issuperset(labels)):
            malformed += 1
            continue
        read += 1
        if qualifying.isdisjoint(labels):
            continue
        classes = {class_of[label] for label in labels if label in class_of}
        if stop - begin >= 1 and name not in videos:
            instrument = classes.pop() if len(classes) == 1 else None
            videos[name] = (begin, stop, labels, instrument)
    rng = random.Random(SEED)
    names = list(videos)
    rng.shuffle(names)
    of_class: dict[str, list[str]] = {instrument: [] for instrument in MIDS}
    for name in names:
        mine = videos[name][3]
        if mine is not None:
            of_class[mine].append(name)
    drawn: list[tuple] = []
    taken: set[str] = set()

    def take(subset: str, role: str, chosen: list[str]) -> None:
        for rank, name in enumerate(chosen):
            begin, stop, labels, instrument = videos[name]
            window = begin + rng.random() * (stop - begin - 1)
            frame = window + rng.random()
            split = "train" if role == "wanted" else None
            drawn.append(
                (name, begin, stop, labels, instrument, subset, split, role, rank, window, frame)
            )
        taken.update(chosen)

    for members in of_class.values():
        extra = int(params.reserve * params.per_class)
        take("classification", "wanted", members[: params.per_class])
        take("classification", "reserve", members[params.per_class :][:extra])
    rest = [name for name in names if name not in taken]
    sizes = [("retrieval", params.retrieval), ("translation", params.translation)]
    for role, factor in (("wanted", 1.0), ("reserve", params.reserve)):
        for subset, size in sizes:
            take(subset, role, rest[: int(size * factor)])
            rest = rest[int(size * factor) :]
    columns = "video_id start_s end_s labels instrument subset split role rank window_s frame_s"
    plan = pd.DataFrame(drawn, columns=columns.split())
    return {
        "read": read,
        "malformed": malformed,
        "videos": len(videos),
        "of class": [len(members) for members in of_class.values()],
        "drawn": len(plan),
    }


def _call(run: Callable[[str], dict[str, Any]], path: str, pipe: Any) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    result = run(path)
    seconds = (time.perf_counter() - wall, time.process_time() - cpu)
    pipe.send((*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, result))


def alone(
    run: Callable[[str], dict[str, Any]], path: str
) -> tuple[float, float, float, dict[str, Any]]:
    """Run in a fresh process: wall and CPU seconds (imports too), peak MiB, result."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(run, path, sender))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=" ".join(__doc__.split("\n\n")[0].split()))
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unbalanced_train_segments.csv"
        make(path, options.rows)
        size = path.stat().st_size / 2**20
        print(f"{options.rows:,} rows, {size:,.0f} MiB; the best of {options.repeats} run(s) each")
        best: dict[str, list[float]] = {}
        results: dict[str, dict[str, Any]] = {}
        for _ in range(options.repeats):
            for name, run in (("anymodal", ours), ("pandas and a loop", peer)):
                *figures, results[name] = alone(run, str(path))
                known = best.get(name, figures)
                best[name] = [min(pair) for pair in zip(known, figures, strict=True)]
    for name, (wall, cpu, peak) in best.items():
        print(f"{name:20s} {wall:7.2f} s wall {cpu:7.2f} s CPU  peak {peak:7,.0f} MiB")
    mine, other = best["anymodal"], best["pandas and a loop"]
    wall, cpu, peak = (b / a for a, b in zip(mine, other, strict=True))
    print(f"  ratio: wall {wall:.1f} ×, CPU {cpu:.1f} ×, peak memory {peak:.1f} ×")
    ours_found, peer_found = results["anymodal"], results["pandas and a loop"]
    print(
        f"read {ours_found['read']:,}, malformed {ours_found['malformed']:,}, videos that qualify "
        f"{ours_found['videos']:,}, drawn {ours_found['drawn']:,}"
    )
    agree = ours_found == peer_found
    print("numbers agree" if agree else f"NUMBERS DIFFER: {ours_found} {peer_found}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
