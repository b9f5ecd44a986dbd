import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.report import readings, wording
from anymodal.report.evidence import read_evidence
from anymodal.report.records import Epoch, SummaryRow, Training, Trainings
from anymodal.report.tables import NO_CLASS

SPACE = "\N{NO-BREAK SPACE}"


def row(system, regime, target, values, chance=0.1):
    values = pd.Series(values, dtype=float)
    return SummaryRow(
        system=system, regime=regime, target=target, mean=values.mean(),
        std=values.std() if len(values) > 1 else 0.0, min=values.min(), max=values.max(),
        seeds=len(values), train_rows=40, test_rows=20, classes=10, chance=chance,
    )  # fmt: skip


def scores(*rows):
    return wording.scores_of(rows)


def test_headline_of_a_good_translation():
    told = wording.headline(
        scores(
            row("MMT", "zero-shot", "image", [0.89, 0.91]), row("SMI", "all", "image", [0.96, 0.96])
        ),
        "image",
    )
    assert told == (
        "Trained on 40 sounds alone, the translated classifier names the instrument in a picture "
        f"with macro F1 0.90 (chance 0.10): 94{SPACE}% of what the classifier trained on 40 "
        "pictures reaches (0.96)."
    )


@pytest.mark.parametrize("mean", [0.02, 0.1])
def test_headline_at_or_below_chance(mean):
    told = wording.headline(
        scores(row("MMT", "zero-shot", "audio", [mean]), row("SMA", "all", "audio", [0.8])), "audio"
    )
    assert "no better than chance" in told
    assert "%" not in told
    assert told.endswith("the classifier trained on 40 sounds reaches 0.80.")


def test_headline_that_chance_reaches_with_one_seed_of_two():
    told = wording.headline(scores(row("MMT", "zero-shot", "image", [0.08, 0.16])), "image")
    assert "0.12 (chance 0.10), above chance on average but not with every seed." in told


def test_headline_without_the_single_system_or_any_score():
    assert wording.headline(scores(row("MMT", "zero-shot", "image", [0.9])), "image").endswith(
        "with macro F1 0.90 (chance 0.10)."
    )
    assert "was not tested" in wording.headline({}, "image")
    hopeless = scores(
        row("MMT", "zero-shot", "image", [0.9]), row("SMI", "all", "image", [0.0, 0.0])
    )
    assert "%" not in wording.headline(hopeless, "image")


def test_close_numbers_get_the_decimals_that_tell_them_apart():
    assert wording.apart(0.1, 0.9) == ["0.10", "0.90"]
    assert wording.apart(0.0909, 0.0931) == ["0.091", "0.093"]
    assert wording.apart(0.5, 0.5) == ["0.50", "0.50"]
    assert wording.apart(0.123456, 0.123457) == ["0.12", "0.12"]


@settings(max_examples=80, deadline=None)
@given(
    zero=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    full=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    single=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    chance=st.sampled_from([0.5, 0.1, 1 / 11]),
)
def test_sentences_agree_with_the_numbers(zero, full, single, chance):
    mmt = row("MMT", "zero-shot", "image", zero, chance)
    every = row("MMT", "all", "image", full, chance)
    smi = row("SMI", "all", "image", single, chance)
    known = scores(mmt, every, smi)
    told = wording.headline(known, "image")
    assert ("no better than chance" in told) == (mmt.mean <= chance)
    if mmt.mean > chance:
        assert ("not with every seed" in told) == (mmt.min <= chance)
    reading = " ".join(wording.scores_reading(known, "image"))
    first = re.search(r"best first: (\w+) ", reading)[1]
    assert first == ("MMT" if every.mean > smi.mean else "SMI") or every.mean == smi.mean
    gain = round(every.mean, 3) - round(mmt.mean, 3)
    added = re.search(r"add ([\d.]+) to MMT", reading)
    cost = re.search(r"cost MMT ([\d.]+) ", reading)
    assert bool(added) == (gain > 1e-9)
    assert bool(cost) == (gain < -1e-9)
    if added or cost:
        assert float((added or cost)[1]) == pytest.approx(abs(gain), abs=1e-6)
    else:
        assert "change nothing for MMT" in reading
    assert "-0." not in reading


def test_one_seed_knows_no_spread():
    assert "no spread is known" in wording.spread_words(1)
    reading = " ".join(
        wording.scores_reading(
            scores(row("MMT", "all", "image", [0.9]), row("MMP", "all", "image", [0.9])), "image"
        )
    )
    assert "spread" not in reading


def test_share_of_the_best_system():
    known = scores(row("MMT", "zero-shot", "audio", [0.6]), row("MMP", "all", "audio", [0.8]))
    share, best = wording.paper_share(known, "audio")
    assert share == pytest.approx(0.75)
    assert best.system == "MMP"
    assert wording.paper_share({}, "audio") is None
    assert wording.paper_share(scores(row("MMT", "zero-shot", "audio", [0.0])), "audio") is None


def test_pairings_are_told_apart():
    assert "without any label" in wording.pairing_words("clip")
    assert "nothing was filmed together" in wording.pairing_words("class")
    assert "seen the labels of its own training subset" in wording.pairing_words("class")
    for pairing in ("clip", "class"):
        told = wording.pairing_words(pairing) + wording.pairing_limit(pairing)
        assert "self-supervis" not in told.lower()


def test_lists_and_plurals():
    assert wording.listed([]) == ""
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["a", "b", "c"]) == "a, b and c"
    assert wording.plural(1, "seed") == "1 seed"
    assert wording.plural(1200, "seed") == "1,200 seeds"


# retrieval ------------------------------------------------------------------------------------


def altered(evidence, **changes):
    """`evidence` with fields of its selection, and baselines of its retrieval, replaced."""
    baseline = changes.pop("baseline", None)
    selection = evidence.selection.model_copy(update=changes)
    retrieval = evidence.retrieval
    if baseline is not None:
        ways = retrieval[0].random.model_copy(update=baseline)
        update = {"random": ways, "pca": ways}
        retrieval = tuple(score.model_copy(update=update) for score in retrieval)
    return type(evidence)(**{**vars(evidence), "selection": selection, "retrieval": retrieval})


def test_retrieval_of_a_typical_run(typical):
    evidence = read_evidence(typical)
    best, second = evidence.selection.ranking[:2]
    told = " ".join(readings.retrieval_reading(evidence))
    assert f"NDCG@30 {best.mean:.3f}" in told
    assert told.count("translation is above it both ways") == 2
    assert f"is {best.mean - second.mean:.3f} behind, more than the seeds spread" in told


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        ({"audio_to_image": 0.99, "image_to_audio": 0.99}, "is not above it either way"),
        ({"audio_to_image": 0.99, "image_to_audio": 0.1}, "is above it only picture → sound"),
    ],
)
def test_retrieval_that_a_baseline_beats(typical, baseline, words):
    told = readings.retrieval_reading(altered(read_evidence(typical), baseline=baseline))
    assert sum(words in sentence for sentence in told) == 2


def test_retrieval_of_close_pairs_of_another_choice_and_of_one_pair(typical, artifacts):
    evidence = read_evidence(typical)
    ranking = tuple(ranked.model_copy(update={"std": 0.5}) for ranked in evidence.selection.ranking)
    told = " ".join(readings.retrieval_reading(altered(evidence, ranking=ranking)))
    assert "no more than the seeds spread" in told
    last = altered(evidence, pair=ranking[-1].pair)
    assert "retrieves better by" in " ".join(readings.retrieval_reading(last))
    alone = read_evidence(artifacts(audio=("a",), image=("b",), seeds=1))
    assert "only pair that was tried" in " ".join(readings.retrieval_reading(alone))


def test_axis_words():
    assert readings.axis_words(0.0) == "The axis starts at 0."
    assert "starts at 0.59, not at 0" in readings.axis_words(0.5871)


# classes --------------------------------------------------------------------------------------


def answered(*pairs):
    table = pd.DataFrame(pairs, columns=["truth", "predicted"])
    return table.assign(system="MMT", regime="zero-shot", target="audio", seed=0)


def test_classes_without_mistakes_with_one_kind_and_without_answers():
    perfect = answered(("flute", "flute"), ("banjo", "banjo"))
    told = readings.classes_reading(perfect, ["banjo", "flute"], "audio")
    assert told == ["Every class has F1 1.00.", "No test row was named wrongly with any seed."]
    one = answered(("flute", "banjo"), ("banjo", "banjo"), ("piano", "piano"))
    told = " ".join(readings.classes_reading(one, ["banjo", "flute", "piano"], "audio"))
    assert "Named best is piano (F1 1.00), worst flute (0.00)." in told
    assert f"The only kind of mistake: flute as banjo (1 of 1, 100{SPACE}%)." in told
    assert "no zero-shot answers for pictures" in readings.classes_reading(one, ["a"], "image")[0]


def drawn(**rows):
    """Count table of {modality: {class: training rows of the translation}}."""
    columns = {(modality, "translation", "train"): counts for modality, counts in rows.items()}
    return pd.DataFrame(columns).fillna(0).astype(int)


def test_how_much_the_translation_had_of_the_worst_class():
    counts = drawn(
        audio={"banjo": 9, "flute": 2, "piano": 5, NO_CLASS: 99},
        image={"banjo": 1000, "flute": 3000, "piano": 1},
    )
    one = answered(("flute", "banjo"), ("banjo", "banjo"), ("piano", "piano"))
    told = readings.classes_reading(one, ["banjo", "flute", "piano"], "audio", counts=counts)
    assert told[1] == (
        "Of flute the translation trained on 2 sounds and 3,000 pictures, "
        "of the middling class on 5 and 1,000."
    )
    assert readings.labels_seen(counts) == (
        "The translation learned from the labels of 16 sounds and 4,001 pictures."
    )
    assert "sounds range from 2 (flute) to 9 (banjo)" in readings.skew_words(counts)
    even = drawn(both={"banjo": 4, "flute": 4})
    assert "every class has 4 rows of clips" in readings.skew_words(even)


def test_nothing_is_said_of_counts_that_are_not_there():
    one = answered(("flute", "banjo"), ("banjo", "banjo"))
    for counts in (None, pd.DataFrame(), drawn(audio={"oboe": 3})):
        told = readings.classes_reading(one, ["banjo", "flute"], "audio", counts=counts)
        assert not any("translation trained on" in sentence for sentence in told)
    assert readings.labels_seen(pd.DataFrame()) == ""
    assert readings.skew_words(pd.DataFrame()) == ""


# training -------------------------------------------------------------------------------------


def trainings(*curves):
    return Trainings(
        pair="a+b",
        seeds=tuple(
            Training(seed=seed, history=tuple(Epoch(valid_loss=loss) for loss in curve))
            for seed, curve in enumerate(curves)
        ),
    )


def test_training_that_stops_early_runs_out_diverges_or_never_was():
    told = " ".join(readings.training_reading(trainings([0.5, 0.2, 0.3], [0.4, 0.25]), 200))
    assert told == (
        "2 trainings of 2 to 3 epochs. The epoch kept is number 2, with validation loss 0.200 to "
        "0.250."
    )
    told = " ".join(readings.training_reading(trainings([0.5, 0.2]), 2))
    assert "1 of them used up all 2 epochs" in told
    nan = float("nan")
    told = " ".join(readings.training_reading(trainings([nan, None], [0.5, nan]), 200))
    assert "1 training diverged." in told
    assert "training diverged" in readings.training_reading(trainings([nan]), 9)[1]
    assert readings.training_reading(trainings([]), 9) == ["No training was recorded."]


@pytest.mark.parametrize(
    ("losses", "kept"),
    [([], None), ([None], None), ([0.3, 0.1, 0.1], 2), ([float("inf"), 5.0], 2)],
)
def test_kept_epoch(losses, kept):
    assert readings.kept_epoch(losses) == kept
