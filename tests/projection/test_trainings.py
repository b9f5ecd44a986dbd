"""Finished trainings are kept, others are trained."""

from contextlib import contextmanager

from anymodal.config.params import TranslateParams
from anymodal.projection.trainings import Training, finished, train_or_load
from helpers.training import training_data

SETTINGS = TranslateParams(hidden=4, dim=2, batch_size=8, max_epochs=2, device="cpu")


def test_a_finished_training_is_kept_and_one_of_other_rows_is_not(tmp_path):
    opened = []

    @contextmanager
    def progress():
        opened.append(True)
        yield lambda done, total: None

    data = training_data("class")
    paths = (tmp_path / "seed-0", tmp_path / "seed-0.checkpoint", progress)
    first = train_or_load(data, SETTINGS, 0, *paths)
    assert isinstance(first, Training) and first.epochs == len(first.history) == 2
    assert train_or_load(data, SETTINGS, 0, *paths) == first and len(opened) == 1
    assert finished(paths[0], data.fingerprint(SETTINGS)) == first
    fewer = data.without({"audio-train-drums-0"})
    assert finished(paths[0], fewer.fingerprint(SETTINGS)) is None
    train_or_load(fewer, SETTINGS, 0, *paths)
    assert len(opened) == 2 and not paths[1].exists()


def test_a_damaged_history_is_trained_again(tmp_path):
    (tmp_path / "history.json").write_text("{")
    assert finished(tmp_path, "any") is None
