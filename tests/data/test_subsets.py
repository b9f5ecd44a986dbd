"""Subsets of generated tables: disjoint, balanced, repeatable, and every row accounted for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.config.params import DatasetParams
from anymodal.core.errors import AnymodalError
from anymodal.data import division
from anymodal.data.clips import validate
from anymodal.data.subsets import ACCOUNT, draw_subsets

PARTS = set(division.PARTS)


def drawing(**values):
    """Parameters that the expected numbers below were worked out for, beside `values`."""
    worked_out = {
        "min_groups": 6, "translation": 0.5, "retrieval": 0.15, "classification_valid": 0.15,
        "classification_test": 0.4,
    }  # fmt: skip
    return DatasetParams(**worked_out | values)


def table(rows: list[dict], pairing: str = "class") -> pd.DataFrame:
    """Clip table of `rows`, each with instrument, kind, group and maybe file, start_s, source."""
    both = pairing == "clip"
    records = []
    for number, row in enumerate(rows):
        file = row.get("file", f"{number:06d}")
        records.append(
            {
                "clip_id": f"{(number * 2654435761) % 2**32:08x}{number:08x}",
                "audio": f"audio/{file}.wav" if both or row["kind"] == "audio" else None,
                "image": f"images/{file}.jpg" if both or row["kind"] == "image" else None,
                "start_s": float(row.get("start_s", 0)),
                "labels": [],
                "instrument": row["instrument"],
                "source": row.get("source", "here"),
                "group": row.get("group", f"g{number}"),
                "pairing": pairing,
                "subset": None,
                "split": None,
            }
        )
    return pd.DataFrame(records)


def takes(names: str, count: int, windows: int, sides: str) -> list[dict]:
    """Rows of `count` groups for every class and modality, of a file per side."""
    return [
        {"instrument": name, "kind": kind, "group": f"{name}{kind}{number}", "start_s": start}
        | {"file": f"{name}{kind}{number}{side}"}
        for name in names
        for kind in ("audio", "image")
        for number in range(count)
        for side in sides
        for start in range(windows)
    ]


def singles(counts: dict[tuple[str | None, str], int]) -> list[dict]:
    """Groups of one row: {(instrument, kind): number}."""
    return [
        {"instrument": name, "kind": kind, "group": f"{name}/{kind}/{number}"}
        for (name, kind), count in counts.items()
        for number in range(count)
    ]


def even(count: int, names: str = "ab") -> list[dict]:
    return singles({(name, kind): count for name in names for kind in ("audio", "image")})


def sizes(clips: pd.DataFrame) -> pd.Series:
    kind = clips["audio"].notna().map({True: "audio", False: ""}) + clips["image"].notna().map(
        {True: "image", False: ""}
    )
    modality = kind.replace("audioimage", "both").rename("modality")
    return clips.groupby(["subset", "split", "instrument", modality]).size().sort_index()


def check_promises(before: pd.DataFrame, clips: pd.DataFrame, account: pd.DataFrame) -> None:
    validate(clips)
    unchanged = before.set_index("clip_id").loc[clips["clip_id"]].drop(columns=["subset", "split"])
    drawn = clips.set_index("clip_id").drop(columns=["subset", "split"])
    pd.testing.assert_frame_equal(drawn, unchanged, check_dtype=False)
    assert set(zip(clips["subset"], clips["split"], strict=True)) == PARTS
    counts = sizes(clips)
    # the same for every class of a modality
    levels = counts["classification"].groupby(level=["split", "modality"])
    assert (levels.nunique() == 1).all()
    strata = counts.index.droplevel(["subset", "split"]).unique()
    assert all(len(counts[part]) == len(strata) for part in PARTS)
    assert tuple(account.columns) == ACCOUNT
    assert account["taken"].sum() == len(before)
    used = account[account["subset"] != "unused"]
    assert used["taken"].sum() == len(clips)
    assert (account.loc[account["subset"] == "unused", "note"] != "").all()
    by_stratum = account.groupby(["instrument", "modality"], dropna=False)
    assert (by_stratum["taken"].sum() == by_stratum["available"].first()).all()
    for row in used.itertuples():
        if isinstance(row.instrument, str):
            assert row.taken == counts.get((row.subset, row.split, row.instrument, row.modality), 0)


@st.composite
def class_tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    rows = []
    for name in "abcd"[: draw(st.integers(2, 4))]:
        for kind in ("audio", "image"):
            for number in range(draw(st.integers(6, 25))):
                for file in range(rng.choice([1, 1, 2])):
                    for start in range(rng.integers(1, 4) if kind == "audio" else 1):
                        group = f"{name}{kind}{number}"
                        rows.append(
                            {"instrument": name, "kind": kind, "group": group, "start_s": start}
                            | {"file": f"{group}.{file}", "source": str(rng.choice([*"xyz"]))}
                        )
    return table(rows)


@settings(max_examples=4, deadline=None)
@given(
    clips=class_tables(),
    seed=st.integers(0, 9),
    translation=st.sampled_from([0.2, 0.5, 0.7]),
    retrieval=st.sampled_from([0.05, 0.15, 0.25]),
)
def test_promises_with_shares(clips, seed, translation, retrieval):
    params = drawing(translation=translation, retrieval=retrieval)
    drawn, account = draw_subsets(clips, params, seed)
    check_promises(clips, drawn, account)
    again, same = draw_subsets(clips.sample(frac=1, random_state=seed), params, seed)
    pd.testing.assert_frame_equal(drawn, again)
    pd.testing.assert_frame_equal(account, same)
    # rows are cut only from groups of classification: everything else is used
    cut = clips[~clips["clip_id"].isin(drawn["clip_id"])]
    assert set(cut["group"]) <= set(drawn.loc[drawn["subset"] == "classification", "group"])


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 999), tangled=st.integers(0, 12))
def test_groups_that_span_classes_are_not_split(seed, tangled):
    clips = table(even(40, "abc"))
    rng = np.random.default_rng(seed)
    for number in range(tangled):
        rows = rng.choice(len(clips), 3, replace=False)
        clips.loc[rows, "group"] = f"tangle{number}"
    drawn, account = draw_subsets(clips, drawing(), seed)
    check_promises(clips, drawn, account)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 999), pairing=st.sampled_from(["clip", "class"]))
def test_numbers_of_clips_are_met_exactly(seed, pairing):
    rng = np.random.default_rng(seed)
    names = [*"abc", None] if pairing == "clip" else [*"abc"]
    rows = [
        {
            "instrument": names[rng.choice(len(names))],
            "kind": rng.choice(["audio", "image"]),
            "group": f"v{rng.integers(500)}",
        }
        for _ in range(900)
    ]
    clips = table(rows, pairing)
    params = drawing(translation=301, retrieval=67, per_class=20)
    drawn, account = draw_subsets(clips, params, seed)
    check_promises(clips, drawn, account)
    strata = 3 if pairing == "clip" else 6
    totals = drawn["subset"].value_counts().to_dict()
    assert totals == {"translation": 301, "retrieval": 67, "classification": 20 * strata}
    assert (sizes(drawn)["classification", "test"] == 8).all()
    beyond = account[(account["note"] == "beyond the number of clips wanted")]
    assert beyond["taken"].sum() > 0
    assert drawn.loc[drawn["subset"] == "classification", "instrument"].notna().all()


def test_poorest_class_by_hand():
    # of eight groups 4 go to translation, 1 to retrieval and 3 to classification, one a split
    rows = even(60, "bc") + singles({("a", "audio"): 8, ("a", "image"): 60})
    drawn, account = draw_subsets(table(rows), drawing(), 0)
    counts = sizes(drawn)
    assert [counts[(*part, "a", "audio")] for part in sorted(PARTS)] == [1, 1, 1, 1, 3, 1]
    classification = counts["classification"].unstack("modality")
    assert (classification["audio"] == 1).all()
    # 60 − 30 − 9 = 21 images of every class, whether or not it has few recordings
    per_split = classification["image"].groupby("split").unique().map(list).to_dict()
    assert per_split == {"test": [8], "train": [10], "valid": [3]}
    # what balance denies to the audio of the others goes to translation: 60 − 3 − 9
    assert counts["translation", "train", "b", "audio"] == 41
    assert counts["translation", "valid", "b", "audio"] == 7
    assert (account["subset"] != "unused").all()


def test_a_poor_class_gives_its_largest_groups_to_classification():
    rows = even(160, "bc") + singles({("a", "image"): 160})
    for number, count in enumerate([6, 6, 6, 1, 1, 1, 1, 1]):
        rows += [
            {"instrument": "a", "kind": "audio", "group": f"take{number}", "file": f"t{number}"}
            | {"start_s": start}
            for start in range(count)
        ]
    drawn, _ = draw_subsets(table(rows), drawing(), 3)
    counts = sizes(drawn)["classification"]
    assert (counts.xs("audio", level="modality") == 6).all()


def test_channels_of_a_take_go_before_its_second_windows():
    params = drawing(per_class=6, translation=0.4)
    drawn, _ = draw_subsets(table(takes("ab", 8, 3, sides="LR")), params, 0)
    chosen = drawn[(drawn["subset"] == "classification") & (drawn["split"] == "test")]
    assert (chosen["start_s"] == 0).all()


def test_unused_classes_are_accounted_for():
    rows = even(20) + singles(
        {("cello", "audio"): 9, ("harp", "image"): 4, (None, "image"): 2, ("tuba", "audio"): 7}
        | {("tuba", "image"): 20}
    )
    drawn, account = draw_subsets(table(rows), drawing(min_groups=8), 0)
    assert set(drawn["instrument"]) == {"a", "b"}
    unused = account[account["subset"] == "unused"].fillna({"instrument": ""})
    rare = "its class has 7 group(s) in a modality, fewer than min_groups (8)"
    assert set(zip(*(unused[name] for name in ("instrument", "taken", "note")), strict=True)) == {
        ("cello", 9, "its class has no images"),
        ("harp", 4, "its class has no audio"),
        ("", 2, "has no class"),
        ("tuba", 7, rare),
        ("tuba", 20, rare),
    }
    kept, _ = draw_subsets(table(rows), drawing(min_groups=7), 0)
    assert "tuba" in set(kept["instrument"])


def test_clip_rows_without_a_class_serve_all_but_classification():
    rows = [{"instrument": name, "kind": "both"} for name in ["a"] * 30 + ["b"] * 30 + [None] * 60]
    clips = table(rows, "clip")
    clips.loc[0, "image"] = None
    drawn, account = draw_subsets(clips, drawing(), 0)
    check_promises(clips, drawn, account)
    subsets = drawn.loc[drawn["instrument"].isna(), "subset"].value_counts()
    assert subsets.to_dict() == {"translation": 51, "retrieval": 9}
    assert "has no image to its audio" in set(account["note"])


@pytest.mark.parametrize(
    ("rows", "params", "message"),
    [
        ([], {}, "empty"),
        (even(20, "a"), {}, "only 1 class"),
        (singles({("a", "audio"): 9, ("b", "image"): 9}), {}, "only 0 class.*has no"),
        (
            even(20, "a") + singles({("c", "audio"): 5, ("c", "image"): 20}),
            {},
            r"only 1 class.*has 5 group\(s\) in a modality, fewer than min_groups \(6\)",
        ),
        (
            even(90) + singles({("c", "audio"): 30, ("c", "image"): 90}),
            {"per_class": 20},
            r"class 'c' \(audio\).*per_class wants 20 rows, 10 are available",
        ),
        (even(20), {"translation": 90}, "translation wants 90 clips, .* are available"),
        (even(20), {"retrieval": 3}, "retrieval wants 3 clips, 4 is the least"),
    ],
)
def test_too_little_is_refused_with_numbers(rows, params, message):
    with pytest.raises(AnymodalError, match=message):
        draw_subsets(table(rows) if rows else table(even(6))[:0], drawing(**params), 0)


def test_a_row_with_audio_and_image_is_no_class_pair():
    clips = table(even(20))
    clips.loc[clips["image"].isna().idxmax(), "image"] = "x.jpg"
    with pytest.raises(AnymodalError, match="paired by class"):
        draw_subsets(clips, drawing(), 0)
