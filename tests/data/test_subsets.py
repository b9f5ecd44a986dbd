"""The division of generated tables: disjoint, balanced, repeatable, and nothing unaccounted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from anymodal.dataset.clips import validate
from anymodal.dataset.folder import scan_folder
from anymodal.dataset.subsets import ACCOUNT, draw_subsets
from anymodal.errors import AnymodalError
from anymodal.params import DatasetParams

INSTRUMENTS = Path(__file__).parents[2] / "../shared/data/instruments"
PARTS = {
    ("translation", "train"),
    ("translation", "valid"),
    ("retrieval", "test"),
    ("classification", "train"),
    ("classification", "valid"),
    ("classification", "test"),
}


def drawing(**values):
    """Parameters that the cases below were worked out for, `values` apart."""
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


def singles(counts: dict[tuple[str, str], int], **more) -> list[dict]:
    """One row a group: {(instrument, kind): number}."""
    return [
        {"instrument": name, "kind": kind, "group": f"{name}/{kind}/{number}", **more}
        for (name, kind), count in counts.items()
        for number in range(count)
    ]


def even(count: int, names: str = "ab") -> list[dict]:
    return singles({(name, kind): count for name in names for kind in ("audio", "image")})


def sizes(clips: pd.DataFrame) -> pd.Series:
    kind = np.where(
        clips["audio"].notna(), np.where(clips["image"].notna(), "both", "audio"), "image"
    )
    modality = pd.Series(kind, index=clips.index, name="modality")
    return clips.groupby(["subset", "split", "instrument", modality]).size().sort_index()


def check_promises(before: pd.DataFrame, clips: pd.DataFrame, account: pd.DataFrame) -> None:
    validate(clips)
    assert set(clips["clip_id"]) <= set(before["clip_id"])
    unchanged = before.set_index("clip_id").loc[clips["clip_id"]].drop(columns=["subset", "split"])
    left = clips.set_index("clip_id").drop(columns=["subset", "split"])
    pd.testing.assert_frame_equal(left, unchanged, check_dtype=False)
    assert set(zip(clips["subset"], clips["split"], strict=True)) == PARTS
    counts = sizes(clips)
    # the same for every class of a modality
    levels = counts["classification"].groupby(level=["split", "modality"])
    assert (levels.nunique() == 1).all()
    strata = counts.index.droplevel(["subset", "split"]).unique()
    for part in PARTS:
        assert len(counts[part]) == len(strata)
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
            for number in range(draw(st.integers(6, 40))):
                for file in range(rng.choice([1, 1, 2])):
                    for start in range(rng.integers(1, 4) if kind == "audio" else 1):
                        rows.append(
                            {
                                "instrument": name,
                                "kind": kind,
                                "group": f"{name}{kind}{number}",
                                "file": f"{name}{kind}{number}.{file}",
                                "start_s": start,
                                "source": str(rng.choice(["x", "y", "z"])),
                            }
                        )
    return table(rows)


@settings(max_examples=15, deadline=None)
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
    shuffled = clips.sample(frac=1, random_state=seed)
    again, same = draw_subsets(shuffled, params, seed)
    pd.testing.assert_frame_equal(drawn, again)
    pd.testing.assert_frame_equal(account, same)
    # rows are cut from groups that serve classification alone: everything else is used
    used_groups = set(drawn["group"])
    cut = clips[~clips["clip_id"].isin(drawn["clip_id"])]
    assert set(cut["group"]) <= used_groups
    serving = drawn.loc[drawn["subset"] == "classification", "group"]
    assert set(cut["group"]) <= set(serving)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), tangled=st.integers(0, 12))
def test_groups_that_span_classes_are_not_torn(seed, tangled):
    clips = table(even(40, "abc"))
    rng = np.random.default_rng(seed)
    for number in range(tangled):
        rows = rng.choice(len(clips), 3, replace=False)
        clips.loc[rows, "group"] = f"tangle{number}"
    drawn, account = draw_subsets(clips, drawing(), seed)
    check_promises(clips, drawn, account)


@settings(max_examples=15, deadline=None)
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
    totals = drawn["subset"].value_counts()
    assert totals["translation"] == 301 and totals["retrieval"] == 67
    strata = 3 if pairing == "clip" else 6
    assert totals["classification"] == 20 * strata
    assert (sizes(drawn)["classification", "test"] == 8).all()
    beyond = account[(account["note"] == "beyond the number of clips wanted")]
    assert beyond["taken"].sum() > 0
    assert drawn.loc[drawn["subset"] == "classification", "instrument"].notna().all()


def test_a_number_is_drawn_in_proportion():
    counts = {("a", "audio"): 400, ("a", "image"): 400, ("b", "audio"): 100, ("b", "image"): 100}
    params = drawing(translation=500, retrieval=100, per_class=20)
    drawn, _ = draw_subsets(table(singles(counts)), params, 0)
    retrieval = sizes(drawn)["retrieval", "test"]
    assert abs(retrieval["a", "audio"] - 40) <= 2 and abs(retrieval["b", "image"] - 10) <= 2


def test_poorest_class_by_hand():
    # of eight groups 4 go to translation, 1 to retrieval and 3 to classification, one a split
    rows = even(60, "bc") + singles({("a", "audio"): 8, ("a", "image"): 60})
    drawn, account = draw_subsets(table(rows), drawing(), 0)
    counts = sizes(drawn)
    assert [counts[(*part, "a", "audio")] for part in sorted(PARTS)] == [1, 1, 1, 1, 3, 1]
    classification = counts["classification"].unstack("modality")
    assert (classification["audio"] == 1).all()
    # 60 − 30 − 9 = 21 pictures of every class, whether or not it has few sounds
    per_split = classification["image"].groupby("split").unique().map(list).to_dict()
    assert per_split == {"test": [8], "train": [10], "valid": [3]}
    # what balance denies to the sounds of the others goes to translation: 60 − 3 − 9
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
    for seed in range(5):
        drawn, _ = draw_subsets(table(rows), drawing(), seed)
        counts = sizes(drawn)["classification"]
        assert (counts.xs("audio", level="modality") == 6).all()


def test_further_windows_are_cut_before_recordings():
    rows = [
        {
            "instrument": name,
            "kind": kind,
            "group": f"{name}{kind}{number}",
            "file": f"{name}{kind}{number}",
            "start_s": start,
        }
        for name in "ab"
        for kind in ("audio", "image")
        for number in range(30)
        for start in range(3)
    ]
    params = drawing(per_class=10, classification_test=0.4, classification_valid=0.2)
    drawn, _ = draw_subsets(table(rows), params, 3)
    chosen = drawn[drawn["subset"] == "classification"]
    assert len(chosen) == 40
    assert chosen["group"].nunique() == 40
    assert (chosen["start_s"] == 0).all()


def test_channels_of_a_take_go_before_its_second_windows():
    rows = [
        {"instrument": name, "kind": kind, "group": f"{name}{kind}{take}", "start_s": start}
        | {"file": f"{name}{kind}{take}{side}"}
        for name in "ab"
        for kind in ("audio", "image")
        for take in range(8)
        for side in "LR"
        for start in range(3)
    ]
    drawn, _ = draw_subsets(table(rows), drawing(per_class=6, translation=0.4), 0)
    chosen = drawn[(drawn["subset"] == "classification") & (drawn["split"] == "test")]
    per_take = chosen.groupby("group").agg(files=("audio", "nunique"), last=("start_s", "max"))
    assert (per_take["last"] == 0).all()


def test_sources_are_spread():
    rows = []
    for source, count in (("x", 60), ("y", 20)):
        for row in even(count, "ab"):
            rows.append(row | {"source": source, "group": f"{source}{row['group']}"})
    for seed in range(5):
        drawn, _ = draw_subsets(table(rows), drawing(), seed)
        of_y = (drawn["source"] == "y").groupby([drawn["subset"], drawn["split"]]).mean()
        assert of_y.between(0.15, 0.36).all(), of_y


def test_seeds_differ():
    clips = table(even(30))
    one, two = (draw_subsets(clips, drawing(), seed)[0] for seed in (0, 1))
    assert not one["subset"].equals(two["subset"])


def test_classes_of_one_modality_are_left_out_and_told():
    rows = even(20) + singles({("cello", "audio"): 9, ("harp", "image"): 4, (None, "image"): 2})
    drawn, account = draw_subsets(table(rows), drawing(), 0)
    assert set(drawn["instrument"]) == {"a", "b"}
    unused = account[account["subset"] == "unused"]
    told = {
        (name if isinstance(name, str) else None, count, note)
        for name, count, note in zip(
            unused["instrument"], unused["taken"], unused["note"], strict=True
        )
    }
    assert told == {
        ("cello", 9, "its class has no images"),
        ("harp", 4, "its class has no audio"),
        (None, 2, "has no class"),
    }


def test_clip_rows_without_a_class_serve_all_but_classification():
    rows = [{"instrument": name, "kind": "both"} for name in ["a"] * 30 + ["b"] * 30 + [None] * 60]
    clips = table(rows, "clip")
    clips.loc[0, "image"] = None
    drawn, account = draw_subsets(clips, drawing(), 0)
    check_promises(clips, drawn, account)
    subsets = drawn.loc[drawn["instrument"].isna(), "subset"].value_counts()
    assert subsets.to_dict() == {"translation": 51, "retrieval": 9}
    assert "has no image to its audio" in set(account["note"])


def test_former_subsets_are_forgotten():
    clips = table(even(20))
    drawn, _ = draw_subsets(clips, drawing(), 0)
    again, _ = draw_subsets(drawn, drawing(), 0)
    pd.testing.assert_frame_equal(drawn, again)


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
        (even(20), {"per_class": 2}, "per_class is 2; at least 3"),
        (even(20), {"translation": 0.8, "retrieval": 0.3}, "below 1"),
        (even(20), {"classification_test": 0.6, "classification_valid": 0.4}, "below 1"),
        (even(20), {"translation": 90}, "translation wants 90 clips, .* are available"),
        (even(20), {"retrieval": 3}, "retrieval wants 3 clips, 4 is the least"),
    ],
)
def test_too_little_is_refused_with_numbers(rows, params, message):
    with pytest.raises(AnymodalError, match=message):
        draw_subsets(table(rows) if rows else table(even(6))[:0], drawing(**params), 0)


def test_a_row_with_both_media_is_no_class_pair():
    clips = table(even(20))
    clips.loc[clips["image"].isna().idxmax(), "image"] = "x.jpg"
    with pytest.raises(AnymodalError, match="paired by class"):
        draw_subsets(clips, drawing(), 0)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(6, 30), min_size=4, max_size=6), per_class=st.integers(3, 14))
def test_per_class_is_met_or_refused_never_missed(counts, per_class):
    assume(len(counts) % 2 == 0)
    names = "abc"[: len(counts) // 2]
    strata = [(name, kind) for name in names for kind in ("audio", "image")]
    clips = table(singles(dict(zip(strata, counts, strict=True))))
    params = drawing(per_class=per_class, translation=0.3)
    spare = min(
        count - max(2, int(0.3 * count + 0.5)) - max(1, int(0.15 * count + 0.5)) for count in counts
    )
    if spare >= per_class:
        drawn, account = draw_subsets(clips, params, 0)
        check_promises(clips, drawn, account)
        assert (sizes(drawn)["classification"].groupby(level=[1, 2]).sum() == per_class).all()
    else:
        with pytest.raises(AnymodalError, match=f"wants {per_class} rows"):
            draw_subsets(clips, params, 0)


def test_the_instruments_beside_the_checkout(tmp_path):
    if not INSTRUMENTS.is_dir():
        pytest.skip("the photographs and recordings are not beside the checkout")
    for kind in ("audio", "images"):
        (tmp_path / kind).mkdir()
        for name in ("accordion", "trumpet", "violin"):
            (tmp_path / kind / name).symlink_to((INSTRUMENTS / kind / name).resolve())
    clips, _ = scan_folder(tmp_path, 3)
    drawn, account = draw_subsets(clips, drawing(), 0)
    check_promises(clips, drawn, account)
    accordion = drawn[(drawn["instrument"] == "accordion") & drawn["audio"].notna()]
    assert accordion["group"].nunique() == 8


def test_a_class_of_too_few_groups_is_left_out_and_accounted_for():
    rare = singles({("tuba", "audio"): 7, ("tuba", "image"): 20})
    clips = table(even(20) + rare)
    drawn, account = draw_subsets(clips, drawing(min_groups=8), 0)
    assert "tuba" not in set(drawn["instrument"])
    lines = account[account["instrument"] == "tuba"]
    assert set(lines["subset"]) == {"unused"}
    assert lines["note"].str.contains("has 7 group.*fewer than min_groups").all()
    assert lines["taken"].sum() == len(rare)
    kept, _ = draw_subsets(clips, drawing(min_groups=7), 0)
    assert "tuba" in set(kept["instrument"])
