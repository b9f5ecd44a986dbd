"""Model cards: what they say and leave open, and that every version has one."""

import json
import re

import mlflow
import pytest

from anymodal import encoders
from anymodal.errors import AnymodalError
from anymodal.judge import Judge
from anymodal.model_card import FILE, classifier_card, translation_card
from anymodal.model_card_store import digest
from anymodal.model_card_text import LIMIT, Known, shortened, version_section
from anymodal.params import TrackingParams
from anymodal.registered_models import CLASSIFIER, TRANSLATION, read_card

SETTINGS = {"hidden": 8, "margin": 1.0}
ENCODERS = {
    "audio": {"name": "musicnn_mtt", "version": "aa", "precision": "float32", "dim": 1506},
    "image": {"name": "toy_image", "version": "bb", "dim": 5},
}
DATASET = {
    "name": "tones", "source": "folder", "pairing": "class", "classes": ["banjo", "flute"],
    "left_out": {"cello": "audio only"}, "rows": {"audio": 1200, "image": 30}, "groups": 40,
    "account": [
        {"modality": m, "subset": s, "split": t, "taken": n}
        for s, t, n in (
            ("translation", "train", 7), ("classification", "test", 5), ("unused", "", 99),
        )
        for m in ("audio", "image") for _ in range(2)
    ],
}  # fmt: skip


def row(system, regime, target, mean, low=None, **more):
    return {
        "system": system, "regime": regime, "target": target, "mean": mean, "std": 0.02,
        "seeds": 3, "chance": 0.5, "train_rows": 10, "test_rows": 21, "low": low,
        "high": None if low is None else low + 0.2, **more,
    }  # fmt: skip


ROWS = [row("MMT", "zero-shot", "audio", 0.8, 0.71), row("SMA", "all", "audio", 0.9)]
RESULTS = {
    "pair": "musicnn_mtt+toy_image", "trees": 9, "summary": ROWS, "intervals": ROWS,
    "zero_shot_share": {
        "audio": {"share": 0.89, "low": 0.8, "high": 0.97, "best_system": "SMA"},
        "image": {"share": None, "low": None, "high": None, "best_system": None},
    },
    "comparisons": [
        {"target": "audio", "first": ["MMT", "zero-shot"], "second": ["SMA", "all"],
         "difference": -0.1, "low": -0.2, "high": -0.01, "p_holm": 0.03},
    ],
}  # fmt: skip
ACROSS = {
    "pair": "musicnn_mtt+toy_image",
    "targets": {
        "audio": {
            "missing": {}, "chance": 0.5, "sources": 7,
            "scores": [row("MMT", "all", "audio", mean, mean - 0.1, protocol=protocol)
                       for protocol, mean in (("within", 0.9), ("across", 0.61))],
        },
        "image": {"missing": {"across": "all rows are of one source"}},
    },
}  # fmt: skip


JUDGED = {
    "dataset": "tones", "pairing": "class", "pair": "musicnn_mtt+toy_image", "keep": 0.9,
    "modalities": {
        m: {"ece_of_votes": 0.2, "ece": ece, "test_rows": rows, "known": known}
        for m, ece, rows, known in (("audio", 0.07, 21, 0.94), ("image", None, 0, None))
    },
    "fusion": {"pairing": "class", "pairs": 980, "audio": 0.8, "image": 0.986, "both": 0.99,
               "better": "image", "difference": 0.004, "interval": [-0.01, 0.03]},
    "unknown": {"noise": {"items": 50, "unknown": 0.88}},
}  # fmt: skip
FITTED = {"keep": 0.9, "calibration_rows": {"audio": 40, "image": 1070}, "fusion_pairs": 280}


@pytest.fixture
def folder(tmp_path):
    """A classifier's folder as far as a card reads it, with its translation in it."""
    header = {
        "kind": "translation", "dim": 16, "pairing": "class", "seed": 4,
        "encoders": ENCODERS, "settings": SETTINGS,
    }  # fmt: skip
    (tmp_path / "projection").mkdir()
    (tmp_path / "projection" / "projection.json").write_text(json.dumps(header))
    facts = {
        "dataset": "tones", "pairing": "class", "pair": "musicnn_mtt+toy_image", "seed": 4,
        "train_rows": {"audio": 6, "image": 7}, "validation_macro_f1": 0.83,
    }  # fmt: skip
    meta = {"classes": ["banjo", "flute"], "encoders": ENCODERS, "facts": facts}
    (tmp_path / "model.json").write_text(json.dumps(meta))
    Judge({"audio": 0.67, "image": 0.4}, facts=FITTED).save(tmp_path)
    return tmp_path


def sections(card):
    return re.findall(r"^## (.+)$", card, flags=re.MULTILINE)


def test_a_classifiers_card_tells_all_that_is_known(folder):
    sources = {"audio": {"here": 700, "there": 500}, "image": {"album": 30}}
    told = Known(dataset=DATASET, sources=sources, results=RESULTS, judged=JUDGED, across=ACROSS)
    card = classifier_card(folder, told)
    assert sections(card) == [
        "Intended use", "Limits", "Pairing", "How to load", "Results", "Trust", "Across sources",
        "Data", "Encoders", "Training",
    ]  # fmt: skip
    for text in (
        "| MMT | the other modality alone | sounds | 0.800 ± 0.020 | 0.710 to 0.910 | 0.500 |",
        "| SMA | labelled sounds | sounds | 0.900 ± 0.020 | unknown |",
        "over 3 seeds",
        "saw no sounds, MMT reaches 89 % (80 to 97 %) of the best score on them (SMA)",
        "MMT zero-shot against SMA all: -0.100 (-0.200 to -0.010), Holm's p = 0.03",
        "validation rows is 0.830",
        "| sounds | all labelled rows | other sources | 0.610 ± 0.020 | 0.510 to 0.710 | 0.500 | 7",
        "MMT reaches 0.610; where it had, 0.900", "Not measured: pictures, other sources: all rows",
        "All pictures are of one source (album)", "tested on 21 sounds of one dataset",
        "1,200 sounds and 30 pictures of 40 recordings", "here 700, there 500",
        "| translation | train | 14 | 14 |", "cello (audio only)",
        f"| audio | musicnn_mtt | aa | float32 | {encoders.info('musicnn_mtt').licence} |",
        "| image | toy_image | bb | float32 | unknown |", "trees 9", "hidden 8, margin 1.0",
        "`pairing: class`", "belong together only by their label",
        "fitted on 40 validation sounds (temperature 0.67) and 1,070 validation pictures (temp",
        "votes → calibrated: 0.200 → 0.070 on 21 test sounds.", "fitted on 280 validation pairs",
        "On 980 test pairs (class-paired, not filmed): sounds alone 80.0 % right, pictures alone "
        "98.6 %, both 99.0 %; +0.4 points beside pictures (-1.0 to +3.0).",
        "keeps 90 % of the validation rows", "It kept 94 % of 21 test sounds. ",
        "It called unknown: 88 % of 50 computed noise", "or `unknown`", "films it averages moments",
    ):  # fmt: skip
        assert text in card, text
    assert "99" not in card.replace("both 99.0 %", "")
    for untrue in ("always answers", "not calibrated", "videos as a whole"):
        assert untrue not in card
    assert "self-supervised" not in card.lower()
    assert card == classifier_card(folder, told)


def test_what_is_not_known_is_not_made_up(folder):
    card = classifier_card(folder)
    assert "Not measured on test rows." in card and "0.830" in card
    assert "Dataset tones." in card and "6 sounds and 7 pictures" in card
    assert "Across sources" not in card and "reaches" not in card
    assert card.count("What that is worth was not measured.") == 2 and "It kept" not in card
    assert "fitted on 40 validation sounds" in card and "keeps 90 % of the validation" in card
    Judge().save(folder)
    card = classifier_card(folder)
    assert "are not calibrated, and it calls nothing unknown but silence" in card
    meta = json.loads((folder / "model.json").read_text())
    meta["facts"] = {"tuned_by": "forest-1234"}
    (folder / "model.json").write_text(json.dumps(meta))
    card = classifier_card(folder)
    assert "the search forest-1234, which reads validation rows alone" in card
    assert "Pairing" not in sections(card) and "Dataset unknown." in card


def test_results_of_another_pair_are_left_out(folder):
    told = Known(
        results={**RESULTS, "pair": "a+b"},
        judged={**JUDGED, "pair": "a+b"},
        across={**ACROSS, "pair": "a+b"},
    )
    card = classifier_card(folder, told)
    assert "Not measured on test rows." in card and "0.800" not in card
    assert "0.610" not in card and "21 sounds" not in card and "980" not in card


def test_a_translations_card(folder):
    folder = folder / "projection"
    card = translation_card(folder)
    assert "1506 and 5 values in, 16 out" in card and "not measured yet" in card
    ways = {"audio_to_image": 0.8, "image_to_audio": 0.6}
    retrieval = {
        "dataset": "tones", "top_k": 30, "n_audio": 92, "n_image": 64, "pca": ways, "random": ways,
        "translation": [{"seed": s, **ways} for s in (4, 5)],
    }  # fmt: skip
    training = {
        "pairs_per_epoch": 1146,
        "seeds": [{"seed": 4, "epochs": 31, "best_epoch": 21, "valid_loss": 0.18}],
    }
    card = translation_card(folder, Known(retrieval=retrieval, training=training))
    assert "NDCG@30 of retrieval among 92 sounds and 64 pictures of tones" in card
    assert "| translated | 0.800 ± 0.000 | 0.600 ± 0.000 | 0.700 ± 0.000 |" in card
    assert "| chance | 0.800 | 0.600 | 0.700 |" in card and "untranslated" not in card
    assert "Stopped after epoch 31, best in 21 (validation loss 0.1800), 1,146 pairs" in card


def test_a_description_keeps_whole_sections():
    card = "# Title\n\nWhat.\n\n## One\n\n" + "a" * 50 + "\n\n## Two\n\n" + "b" * 50 + "\n"
    assert shortened(card, 1000, "rest") == card
    for limit in range(20, len(card)):
        short = shortened(card, limit, "rest")
        assert len(short) <= limit and short.endswith("rest")
        assert ("## One" in short) == ("a" * 50 in short) == (limit >= 80)
        assert "## Two" not in short
    assert sections(version_section(["here"])) == ["Version"]


def test_the_card_is_no_part_of_what_the_model_is(folder):
    before = digest(folder)
    (folder / FILE).write_text("# A card")
    assert digest(folder) == before
    (folder / "model.json").write_text("{}")
    assert digest(folder) != before


@pytest.fixture(scope="module")
def client(finished):
    uri = f"sqlite:///{finished.folder}/mlflow.db"
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture
def card_of(finished, monkeypatch):
    """Function: model, version → its card in the finished project's store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished.folder}/mlflow.db")
    yield lambda name, number="": read_card(TrackingParams(), name, number)
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("name", [TRANSLATION, CLASSIFIER])
def test_every_version_has_a_card(client, card_of, name):
    assert "model card" in client.get_registered_model(name).description
    versions = client.search_model_versions(f"name = '{name}'")
    assert versions
    for version in versions:
        told = card_of(name, str(version.version))
        assert sections(told)[-1] == "Version" and f"models:/{name}/{version.version}" in told
        assert version.run_id in told and "musicnn_mtt" in told and "ISC" in told
        assert len(version.description) <= LIMIT
        assert version.description.startswith(told[:200])
        # what must not be missed has room in the description
        assert {"Intended use", "Limits", "Pairing"} <= set(sections(version.description))
        assert "self-supervised" not in told.lower()


def test_the_classifiers_card_has_the_results_of_the_project(finished, card_of):
    told = card_of(CLASSIFIER)
    results = json.loads((finished.folder / "artifacts/classification/results.json").read_text())
    for one in results["summary"]:
        assert f"{one['mean']:.3f} ± {one['std']:.3f}" in told
    across = json.loads((finished.folder / "artifacts/across/across.json").read_text())
    measured = [o for o in across["targets"]["audio"]["scores"] if o["system"] == "MMT"]
    assert measured and all(f"{o['mean']:.3f}" in told for o in measured)
    assert "philharmonia" in told and "accordion (" in told
    judged = json.loads((finished.folder / "artifacts/classification/judge.json").read_text())
    for one in judged["modalities"].values():
        assert f"{one['ece_of_votes']:.3f} → {one['ece']:.3f} on {one['test_rows']} test" in told
    assert f"both {100 * judged['fusion']['both']:.1f} %" in told
    # what DVC keeps rests on the stage's own inputs: no scores of a later stage, no commit
    kept = (finished.folder / "artifacts/classifier" / FILE).read_text()
    assert sections(kept) == [s for s in sections(told) if s not in ("Across sources", "Version")]


def test_the_translations_card_has_its_retrieval_scores(finished, card_of):
    path = finished.folder / "artifacts/retrieval/musicnn_mtt+efficientnet_lite0.json"
    chance = json.loads(path.read_text())["random"]
    row = f"| chance | {chance['audio_to_image']:.3f} | {chance['image_to_audio']:.3f} |"
    assert row in card_of(TRANSLATION)


@pytest.mark.parametrize("name", [TRANSLATION, CLASSIFIER])
def test_the_cards_python_names_the_models_inputs(card_of, name):
    """That such calls work, tests/test_pipeline.py shows."""
    (code,) = re.findall(r"```python\n(.*?)```", card_of(name), flags=re.DOTALL)
    compile(code, name, "exec")
    (uri,) = re.findall(r'"(models:/[^"]+)"', code)
    columns = re.findall(r'[{ ]"(\w+)":', code)
    assert mlflow.models.get_model_info(uri).signature.inputs.input_names() == columns


def test_the_command_prints_the_champions_card(finished, card_of):
    assert finished.run("anymodal", "runs", "card").stdout == card_of(CLASSIFIER)


def test_cards_that_are_not_there(card_of):
    with pytest.raises(AnymodalError, match="no registered model 'violin'"):
        card_of("violin")
    with pytest.raises(AnymodalError, match="has no version 99; its versions are: 1"):
        card_of(CLASSIFIER, "99")
