"""The protocols on clip tables made by hand, and on features with a known shift of the sources."""

import numpy as np
import pandas as pd
import pytest

from anymodal.evaluation.cross_source import PROTOCOLS, answer, plan
from anymodal.evaluation.cross_source_scores import COMPARED, by_source, differences, scores
from anymodal.evaluation.forests import ForestSettings, LabelledFeatures, macro_f1
from anymodal.evaluation.resampling import Resampling

CLASSES = ("drums", "piano", "violin")
HOW = Resampling(replicates=200)
FORESTS = ForestSettings(trees=15, max_depth=None)


def table(sources, pairing="class", per_cell=6, take=1, images="web"):
    """A clip table: `sources` maps a source to its classes; `take` rows a group."""
    rows = []
    both = pairing == "clip"

    def add(source, name, subset, split, number, modality):
        place = f"{modality}-{source}-{name}-{subset}-{split}-{number}"
        rows.append(
            {
                "clip_id": place,
                "audio": place if both or modality == "audio" else None,
                "image": place if both or modality == "image" else None,
                "start_s": 0.0,
                "labels": ["/m/x"],
                "instrument": name,
                "source": source,
                "group": f"{place.rsplit('-', 1)[0]}-{number // take}",
                "pairing": pairing,
                "subset": subset,
                "split": split,
            }
        )

    parts = [("classification", "train"), ("classification", "test"), ("translation", "train"),
             ("translation", "valid"), ("retrieval", "test")]  # fmt: skip
    for subset, split in parts:
        for number in range(per_cell):
            for source, names in sources.items():
                for name in names:
                    add(source, name, subset, split, number, "audio")
            for name in () if both else CLASSES:
                add(images, name, subset, split, number, "image")
    return pd.DataFrame(rows)


THREE = {"a": CLASSES, "b": CLASSES, "c": CLASSES}


def test_every_protocol_tests_the_same_rows_once():
    made = plan(table(THREE), "audio", 3, 0)
    assert set(made.fold) == set(PROTOCOLS) and not made.missing and not made.left_out
    clips = made.clips
    wanted = (clips["subset"] == "classification") & clips["audio"].notna()
    np.testing.assert_array_equal(made.tested, wanted)
    for protocol in PROTOCOLS:
        asked = [made.tested_ids(protocol, fold) for fold in made.folds(protocol)]
        assert len(asked) == 3 and sum(map(len, asked)) == wanted.sum()
        assert set().union(*asked) == set(clips.loc[wanted, "clip_id"])
        for fold in made.folds(protocol):
            assert made.tested_ids(protocol, fold) <= made.held_out(protocol, fold)


def test_across_holds_out_whole_sources_of_both_subsets_and_no_images():
    made = plan(table(THREE), "audio", 3, 0)
    clips = made.clips
    for fold in made.folds("cross_source"):
        held = clips[clips["clip_id"].isin(made.held_out("cross_source", fold))]
        (source,) = held["source"].unique()
        every = clips[(clips["source"] == source) & clips["audio"].notna()]
        assert set(held["clip_id"]) == set(every["clip_id"])
        assert set(held["subset"]) == {"classification", "translation"}


def test_matched_holds_out_as_many_rows_of_each_kind_and_no_whole_source():
    # unlike folds: a has twice the rows of the others
    more = table({"a": CLASSES})
    more = more.assign(clip_id="more-" + more["clip_id"], group="more-" + more["group"])
    clips = pd.concat([table(THREE), more])
    made = plan(clips, "audio", 3, 0)
    kinds = ["subset", "split", "instrument"]
    for fold in made.folds("cross_source"):
        held = {
            protocol: made.clips[made.clips["clip_id"].isin(made.held_out(protocol, fold))]
            for protocol in ("size_matched", "cross_source")
        }
        counted = [one.groupby(["subset", "instrument"]).size() for one in held.values()]
        pd.testing.assert_series_equal(*counted)
        translation = [
            one[one["subset"] == "translation"].groupby(kinds).size() for one in held.values()
        ]
        pd.testing.assert_series_equal(*translation)
        assert held["size_matched"]["source"].nunique() > 1
        assert held["cross_source"]["source"].nunique() == 1


@pytest.mark.parametrize("pairing", ["class", "clip"])
def test_recordings_stay_whole_under_every_protocol(pairing):
    made = plan(table(THREE, pairing, take=3), "audio", 3, 0)
    for protocol in PROTOCOLS:
        folds = pd.Series(made.fold[protocol]).groupby(made.clips["group"]).nunique()
        assert (folds == 1).all()


def test_within_leaves_the_translation_alone_and_divides_classes_evenly():
    made = plan(table(THREE), "audio", 3, 0)
    translation = (made.clips["subset"] == "translation").to_numpy()
    assert (made.fold["within"][translation] == -1).all()
    counts = pd.crosstab(made.fold["within"][made.tested], made.clips["instrument"][made.tested])
    assert (counts == 12).all().all()


def test_a_clip_goes_with_both_its_modalities_and_both_targets_share_folds():
    clips = table(THREE, pairing="clip")
    audio, image = plan(clips, "audio", 3, 0), plan(clips, "image", 3, 0)
    for protocol in PROTOCOLS:
        np.testing.assert_array_equal(audio.fold[protocol], image.fold[protocol])


def test_a_single_source_gives_a_reason_and_still_tests_within():
    made = plan(table(THREE), "image", 3, 0)
    assert set(made.fold) == {"within"}
    assert made.missing == dict.fromkeys(
        ("size_matched", "cross_source"), "all image clips are of one source (web)"
    )
    assert made.tested.sum() == 36


def test_a_class_of_one_source_is_left_out_of_every_protocol_and_listed():
    made = plan(table({"a": CLASSES, "b": ("drums", "piano")}), "audio", 3, 0)
    (left,) = made.left_out
    assert (left.instrument, left.rows) == ("violin", 12)
    assert left.reason == "all its audio clips are of one source (a)"
    assert made.classes == ["drums", "piano"]
    for protocol in PROTOCOLS:
        asked = set().union(*(made.tested_ids(protocol, fold) for fold in made.folds(protocol)))
        assert len(asked) == 48 and not any("violin" in clip for clip in asked)


def test_a_class_that_only_one_source_taught_the_translation_is_left_out_there():
    clips = table({"a": CLASSES, "b": CLASSES})
    taught = (clips["subset"] == "translation") & (clips["source"] == "b")
    made = plan(clips[~(taught & (clips["instrument"] == "violin"))], "audio", 2, 0)
    (left,) = made.left_out
    # more than a's 12: where the numbers are matched, the rows are others
    assert left.instrument == "violin" and left.rows >= 12
    assert "to train on outside its fold" in left.reason
    lost = made.clips[(made.clips["instrument"] == "violin") & (made.clips["source"] == "a")]
    own = lost[lost["subset"] == "classification"]
    assert not made.tested[own.index].any()


def test_clip_pairing_needs_no_class_in_the_translation():
    clips = table({"a": CLASSES, "b": CLASSES}, pairing="clip")
    clips.loc[clips["subset"] == "translation", "instrument"] = None
    made = plan(clips, "audio", 2, 0)
    assert not made.left_out and made.tested.sum() == 72


def test_classes_that_share_no_source_cannot_be_tested_across():
    made = plan(table({"a": ("drums",), "b": ("piano",), "c": ("violin",)}), "audio", 3, 0)
    reason = "fewer than two classes have audio clips of more than one source"
    assert made.missing["cross_source"] == reason
    assert set(made.fold) == {"within"} and len(made.classes) == 3


def test_a_refusal_is_recorded_and_leaves_within():
    made = plan(table(THREE), "audio", 3, 0, refused="nothing left to validate")
    assert made.missing == dict.fromkeys(
        ("size_matched", "cross_source"), "nothing left to validate"
    )
    assert set(made.fold) == {"within"}


def test_no_rows_at_all_measure_nothing():
    made = plan(table(THREE).iloc[:0], "audio", 3, 0)
    assert not made.fold and set(made.missing) == set(PROTOCOLS) and not made.classes
    one = table(THREE, per_cell=2)
    made = plan(one[one["instrument"] == "drums"], "audio", 3, 0)
    assert set(made.missing) == set(PROTOCOLS) and not made.tested.any()


def test_a_recording_alone_in_its_class_is_left_out():
    clips = table(THREE)
    violin = (clips["instrument"] == "violin") & (clips["audio"].notna())
    first = clips[violin & (clips["subset"] == "classification")].index[:1]
    keep = ~violin | (clips["subset"] == "translation") | clips.index.isin(first)
    made = plan(clips[keep], "audio", 3, 0)
    (left,) = made.left_out
    assert left.rows == 1 and left.reason == "all its audio clips are of one recording"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_plan_follows_from_its_seed(seed):
    clips = table(THREE)
    first, second = plan(clips, "audio", 3, seed), plan(clips, "audio", 3, seed)
    for protocol in PROTOCOLS:
        np.testing.assert_array_equal(first.fold[protocol], second.fold[protocol])
    other = plan(clips, "audio", 3, seed + 1)
    assert (first.fold["within"] != other.fold["within"]).any()
    np.testing.assert_array_equal(first.fold["cross_source"], other.fold["cross_source"])


def features(made, known):
    """Features that tell the class alike in all sources, or (not `known`) in each its own way."""
    rng = np.random.default_rng(0)
    found = {}
    for modality in ("audio", "image"):
        own = made.clips[(made.clips["subset"] == "classification") & made.clips[modality].notna()]
        place = own["instrument"].map({name: i for i, name in enumerate(CLASSES)}).to_numpy()
        turn = own["source"].map({"a": 0, "b": 1, "c": 2, "web": 0}).to_numpy()
        values = np.eye(9)[place if known else place + 3 * turn]
        values += 0.05 * rng.standard_normal(values.shape)
        found[modality] = LabelledFeatures(
            values.astype(np.float32),
            own["instrument"].to_numpy(str),
            own["clip_id"].to_numpy(str),
        )
    return found


def everything(made, known):
    given = features(made, known)
    return pd.concat(
        [
            answer(made, protocol, fold, given, given, FORESTS, 0).assign(
                protocol=protocol, seed=0, fold=fold
            )
            for protocol in made.fold
            for fold in made.folds(protocol)
        ],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def turned():
    """A plan and the answers where nothing learned of one source holds for another."""
    made = plan(table(THREE), "audio", 3, 0)
    return made, everything(made, known=False)


def of(found, protocol, system, regime="all"):
    (score,) = (s for s in found if (s.protocol, s.system, s.regime) == (protocol, system, regime))
    return score


def test_what_holds_of_one_source_alone_shows_within_and_fails_across(turned):
    made, answers = turned
    groups = dict(zip(made.clips["clip_id"], made.clips["group"], strict=True))
    found = scores(answers, made.classes, groups, HOW)
    assert of(found, "within", "SMA").mean > 0.85
    assert of(found, "size_matched", "SMA").mean > 0.85
    assert of(found, "cross_source", "SMA").mean < 0.4
    parted = {
        (d.first, d.second): d
        for d in differences(answers, made.classes, groups, HOW)
        if d.system == "SMA"
    }
    assert set(parted) == set(COMPARED)
    whole = parted["within", "cross_source"]
    assert whole.low > 0.4 and whole.p_holm < 0.05
    assert whole.difference == pytest.approx(
        parted["within", "size_matched"].difference
        + parted["size_matched", "cross_source"].difference
    )


def test_what_holds_of_every_source_shows_under_every_protocol():
    made = plan(table(THREE), "audio", 3, 0)
    answers = everything(made, known=True)
    groups = dict(zip(made.clips["clip_id"], made.clips["group"], strict=True))
    for score in scores(answers, made.classes, groups, HOW):
        assert score.mean > 0.95


def test_no_forest_sees_its_fold_and_every_system_answers(turned):
    _, answers = turned
    keys = set(zip(answers["system"], answers["regime"], strict=True))
    assert keys == {
        ("MMT", "zero-shot"), ("MMT", "all"), ("MMP", "zero-shot"), ("MMP", "all"), ("SMA", "all"),
    }  # fmt: skip
    rows = answers[(answers["system"] == "SMA") & (answers["protocol"] == "cross_source")]
    assert set(rows["train_rows"]) == {72}  # of 108 audio clips, without the 36 of the fold
    zero = answers[(answers["system"] == "MMT") & (answers["regime"] == "zero-shot")]
    assert set(zero["train_rows"]) == {36}  # all images


def test_scores_pool_the_folds_and_spread_over_seeds(turned):
    made, answers = turned
    groups = dict(zip(made.clips["clip_id"], made.clips["group"], strict=True))
    right = answers.assign(seed=1, predicted=answers["truth"])
    found = of(
        scores(pd.concat([answers, right]), made.classes, groups, HOW), "cross_source", "SMA"
    )
    own = answers[(answers["system"] == "SMA") & (answers["protocol"] == "cross_source")]
    first = macro_f1(own["truth"], own["predicted"], made.classes)
    assert found.mean == pytest.approx((first + 1) / 2)
    assert (found.min, found.max, found.seeds) == (pytest.approx(first), 1.0, 2)
    assert found.std == pytest.approx((1 - first) / np.sqrt(2))


def test_each_source_comes_with_its_share_of_right_answers(turned):
    made, answers = turned
    sources = dict(zip(made.clips["clip_id"], made.clips["source"], strict=True))
    found = by_source(answers, sources)
    assert [(s.source, s.rows, s.classes) for s in found] == [
        ("a", 36, 3), ("b", 36, 3), ("c", 36, 3),
    ]  # fmt: skip
    own = answers[answers["clip_id"].map(sources).eq("b") & answers["system"].eq("SMA")
                  & answers["protocol"].eq("cross_source")]  # fmt: skip
    accuracy = of(found[1].accuracy, "cross_source", "SMA").value
    assert accuracy == pytest.approx((own["truth"] == own["predicted"]).mean())


def test_no_answers_give_no_scores():
    columns = ["protocol", "system", "regime", "seed", "clip_id", "truth", "predicted"]
    empty = pd.DataFrame(columns=columns)
    assert scores(empty, ["x"], {}) == () == differences(empty, ["x"], {}) == by_source(empty, {})
