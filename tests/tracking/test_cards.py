"""Model cards: what they say and leave open, and that every version has one."""

import dataclasses
import re

import mlflow
import pytest

from anymodal.classifier.assessment import CalibrationResult
from anymodal.classifier.open_set import OpenSetCalibrator
from anymodal.config.params import TrackingParams
from anymodal.core.errors import AnymodalError
from anymodal.core.storage import read_json, write_json
from anymodal.core.workspace import Workspace
from anymodal.encoders import registry
from anymodal.evaluation.classification import ClassificationResult
from anymodal.evaluation.cross_source_scores import CrossSourceResult
from anymodal.evaluation.retrieval import RetrievalResult
from anymodal.tracking.cards import (
    FILE,
    LIMIT,
    CardInputs,
    classifier_card,
    shortened,
    translation_card,
)
from anymodal.tracking.registered_models import CLASSIFIER, TRANSLATION, read_card
from anymodal.tracking.registry import digest
from helpers.results import report_inputs, write_results

PAIR = "musicnn_mtt+toy_image"
ENCODERS = {
    "audio": {"name": "musicnn_mtt", "version": "aa", "precision": "float32", "dim": 1506},
    "image": {"name": "toy_image", "version": "bb", "dim": 5},
}
FACTS = {
    "dataset": "instruments", "pairing": "class", "pair": PAIR, "seed": 2,
    "train_rows": {"audio": 6, "image": 7}, "validation_macro_f1": 0.83,
}  # fmt: skip
FITTED = {
    "ood_keep_rate": 0.95, "calibration_rows": {"audio": 40, "image": 1070}, "fusion_pairs": 280,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A classifier's folder as far as a card reads it, with its translation in it."""
    header = {"dim": 16, "pairing": "class", "seed": 2, "encoders": ENCODERS,
              "settings": {"hidden": 8, "margin": 1.0}}  # fmt: skip
    write_json(tmp_path / "projection" / "projection.json", header)
    meta = {"classes": ["banjo", "flute"], "encoders": ENCODERS, "facts": FACTS}
    write_json(tmp_path / "model.json", meta)
    OpenSetCalibrator(temperatures={"audio": 0.67, "image": 0.4}, facts=FITTED).save(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def results():
    return report_inputs(
        seeds=3, audio=["musicnn_mtt"], image=["toy_image"], classes=["banjo", "flute", "piano"],
        per_class=6,
    )  # fmt: skip


@pytest.fixture(scope="module")
def inputs(results):
    return CardInputs(
        dataset=results.dataset,
        sources={"audio": {"hall": 1700, "room": 500}, "image": {"album": 30}},
        trainings=results.trainings,
        retrieval=results.retrieval[0],
        classification=results.classification,
        calibration=results.calibration,
        cross_source=results.cross_source,
    )


def sections(card):
    return re.findall(r"^## (.+)$", card, flags=re.MULTILINE)


def plain(card):
    """The card without no-break spaces."""
    return card.replace("\N{NO-BREAK SPACE}", " ")


def test_a_classifiers_card_has_all_that_is_known(folder, inputs):
    card = plain(classifier_card(folder, inputs))
    assert sections(card) == [
        "Intended use", "Limits", "Pairing", "How to load", "Results", "Trust", "Across sources",
        "Data", "Encoders", "Training",
    ]  # fmt: skip
    result = inputs.classification
    for score in result.summary:
        ends = result.intervals_by_key[score.key]
        scored = f"{score.mean:.3f} ± {score.std:.3f} | {ends.low:.3f} to {ends.high:.3f}"
        assert f"| {scored} | {score.chance:.3f} | {score.train_rows} | 18 |" in card
    for each in result.comparisons:
        ends = f"{each.low:+.3f} to {each.high:+.3f}"
        assert f"| {each.difference:+.3f} | {ends} | {each.p_holm:.3g} |" in card
    for share in result.zero_shot_share.values():
        assert f"({share.best_system}): {100 * share.share:.0f} % (" in card
    for score in inputs.cross_source.targets["audio"].scores:
        assert (f"| {score.mean:.3f} ± 0.010 | " in card) == (score.system == "MMT")
    for text in (
        "over 3 seed(s)", "Macro F1 on validation rows: 0.830", "| SMA | audio | audio |",
        "Not measured: images, across sources: all image clips are of one source (web)",
        "has macro F1 0.310; with them, 0.840", "All images are of one source (album)",
        "Tested on 18 audio clips and 18 images of one dataset", "hall 1,700, room 500",
        "| translation | train | 267 | 267 |", "cello (audio only)",
        f"| audio | musicnn_mtt | aa | float32 | {registry.info('musicnn_mtt').licence} |",
        "| image | toy_image | bb | float32 | unknown | not registered here |", "trees 100",
        "hidden 8, margin 1.0", "`pairing: class`", "paired by label alone", "as `unknown`",
        "| audio | 40 | 0.67 | 18 | 0.200 | 0.020 | 94 % |", "| image | 1070 | 0.40 | 18 |",
        "(280 pairs)", "keeps 95 % of them", "980 class-paired test pairs",
        "audio 80.0 %, image 95.0 %, both 97.0 %; both minus image +2.0 points (-1.0 to +5.0)",
        "90 % of 50 noise",
    ):  # fmt: skip
        assert text in card, text
    assert "unused" not in card and "self-supervised" not in card.lower()
    assert card == plain(classifier_card(folder, inputs))


def test_what_is_not_known_is_not_made_up(folder):
    card = plain(classifier_card(folder, CardInputs()))
    assert "Not measured on test rows." in card and "0.830" in card
    assert "Dataset instruments." in card and "6 audio clips and 7 images" in card
    assert "Across sources" not in sections(card) and "Tested on" not in card
    assert "| audio | 40 | 0.67 | not measured | – | – | – |" in card
    OpenSetCalibrator().save(folder)
    assert "Not calibrated" in classifier_card(folder, CardInputs())
    meta = read_json(folder / "model.json") | {"facts": {"tuned_by": "forest-1234"}}
    write_json(folder / "model.json", meta)
    card = classifier_card(folder, CardInputs())
    assert "the search forest-1234, which reads validation rows only" in card
    assert "Pairing" not in sections(card) and "Dataset unknown." in card


def test_inputs_are_what_the_named_stages_wrote_about_the_pair(results, tmp_path):
    workspace = write_results(results, tmp_path)
    every = {"translate", "retrieve", "classify", "cross_source"}
    known = CardInputs.read(workspace, PAIR, every)
    for name in ("dataset", "trainings", "classification", "calibration", "cross_source"):
        assert getattr(known, name) == getattr(results, name), name
    assert known.retrieval == results.retrieval[0] and known.sources == {}
    assert CardInputs.read(workspace, PAIR, set()) == CardInputs(dataset=results.dataset)
    assert CardInputs.read(workspace, "a+b", every) == CardInputs(dataset=results.dataset)
    assert CardInputs.read(Workspace(tmp_path / "none"), PAIR, every) == CardInputs()
    of_pair = {"classification": None, "calibration": None, "cross_source": None}
    for name in of_pair:
        other = getattr(results, name).model_copy(update={"pair": "a+b"})
        other.write(getattr(workspace, name))
    assert CardInputs.read(workspace, PAIR, every) == dataclasses.replace(known, **of_pair)


def test_a_translations_card(folder, inputs):
    folder = folder / "projection"
    card = translation_card(folder, CardInputs())
    assert "audio (1506 values) and of images (5)" in card and "(16, of length 1)" in card
    assert "was not measured" in card
    card = translation_card(folder, inputs)
    assert "NDCG@30 of retrieval among 410 audio clips and 395 images of instruments" in card
    mean = sum(seed.mean for seed in inputs.retrieval.translation) / 3
    assert re.search(rf"\| translated \|.*\| {mean:.3f} ± 0\.\d{{3}} \|\n", card)
    assert f"| chance | 0.622 | 0.631 | {inputs.retrieval.random.mean:.3f} |" in card
    assert "untranslated" not in card
    training = inputs.trainings.seeds[2]
    assert (
        f"after epoch {training.epochs}, best in {training.best_epoch} (validation loss "
        f"{training.valid_loss:.4f}), 1,375 pairs per epoch" in card
    )


def test_a_description_keeps_whole_sections():
    card = "# Title\n\nWhat.\n\n## One\n\n" + "a" * 50 + "\n\n## Two\n\n" + "b" * 50 + "\n"
    assert shortened(card, 1000, "rest") == card
    for limit in range(20, len(card)):
        short = shortened(card, limit, "rest")
        assert len(short) <= limit and short.endswith("rest")
        assert ("## One" in short) == ("a" * 50 in short) == (limit >= 80)
        assert "## Two" not in short


def test_the_card_is_not_part_of_the_models_digest(folder):
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


@pytest.mark.slow
@pytest.mark.parametrize("name", [TRANSLATION, CLASSIFIER])
def test_every_version_has_a_card(client, card_of, name):
    assert "model card" in client.get_registered_model(name).description
    versions = client.search_model_versions(f"name = '{name}'")
    assert versions
    for version in versions:
        card = card_of(name, str(version.version))
        assert sections(card)[-1] == "Version" and f"models:/{name}/{version.version}" in card
        assert version.run_id in card and "musicnn_mtt" in card and "ISC" in card
        assert len(version.description) <= LIMIT
        assert version.description.startswith(card[:200])
        # what must not be missed has room in the description
        assert {"Intended use", "Limits", "Pairing"} <= set(sections(version.description))
        assert "self-supervised" not in card.lower()


@pytest.mark.slow
def test_the_registered_cards_have_the_results_of_the_project(finished, card_of):
    workspace = Workspace(finished.folder)
    card = plain(card_of(CLASSIFIER))
    result = ClassificationResult.read(workspace.classification, "classify")
    assert all(f"{score.mean:.3f} ± {score.std:.3f}" in card for score in result.summary)
    cross_source = CrossSourceResult.read(workspace.cross_source, "cross_source")
    measured = [s for s in cross_source.targets["audio"].scores if s.system == "MMT"]
    assert measured and all(f"{score.mean:.3f}" in card for score in measured)
    assert "philharmonia" in card and "accordion (" in card
    calibration = CalibrationResult.read(workspace.calibration, "classify")
    for rows in calibration.modalities.values():
        assert f"| {rows.test_rows} | {rows.ece_of_votes:.3f} | {rows.ece:.3f} |" in card
    assert f"both {100 * calibration.fusion.both:.1f} %" in card
    # what DVC keeps rests on the stage's own inputs: no scores of a later stage, no commit
    kept = (workspace.classifier / FILE).read_text()
    assert sections(kept) == [s for s in sections(card) if s not in ("Across sources", "Version")]
    path = workspace.retrieval("musicnn_mtt+efficientnet_lite0")
    chance = RetrievalResult.read(path, "retrieve").random
    row = f"| chance | {chance.audio_to_image:.3f} | {chance.image_to_audio:.3f} |"
    assert row in card_of(TRANSLATION)


@pytest.mark.slow
@pytest.mark.parametrize("name", [TRANSLATION, CLASSIFIER])
def test_the_cards_python_names_the_models_inputs(card_of, name):
    (code,) = re.findall(r"```python\n(.*?)```", card_of(name), flags=re.DOTALL)
    compile(code, name, "exec")
    (uri,) = re.findall(r'"(models:/[^"]+)"', code)
    columns = re.findall(r'[{ ]"(\w+)":', code)
    assert mlflow.models.get_model_info(uri).signature.inputs.input_names() == columns


@pytest.mark.slow
def test_the_command_prints_the_champions_card(finished, card_of):
    assert finished.run("anymodal", "runs", "card").stdout == card_of(CLASSIFIER)
    with pytest.raises(AnymodalError, match="no registered model 'violin'"):
        card_of("violin")
    with pytest.raises(AnymodalError, match="has no version 99; its versions are: 1"):
        card_of(CLASSIFIER, "99")
