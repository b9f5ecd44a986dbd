import pytest
import soundfile

from anymodal.app.responder import Responder
from anymodal.core.errors import AnymodalError
from anymodal.media.segmentation import segment
from helpers.appdata import text_of
from helpers.small import RATE, audio


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "bell.wav", audio("bell", 2), RATE)
    return tmp_path / "bell.wav"


def decode(content, name):
    if not content:
        raise AnymodalError("is empty")
    return segment(content, RATE)


def test_encoders_run_once_for_answer_and_neighbours(classifier, wav, monkeypatch):
    expected = classifier.predict([wav])[0]
    nearest = classifier.reference.nearest(classifier.embed([wav])[0]["audio"], 1, "audio")[0]
    network, batches = classifier.networks["audio"], []
    embed = network.embed
    monkeypatch.setattr(network, "embed", lambda batch: batches.append(len(batch)) or embed(batch))
    answer, near, text, plot = Responder(classifier, None, decode).file(str(wav))
    assert batches == [2]
    assert f"bell.wav {expected.answer}" in text_of(answer)
    assert f"{nearest.instrument} cosine {nearest.cosine:.2f}" in text_of(near)
    assert "your audio" in plot.plot and "crosshair" in text


def test_a_classifier_without_training_rows_has_no_map(classifier, wav, monkeypatch):
    monkeypatch.setattr(classifier, "reference", None)
    responder = Responder(classifier, None, decode)
    answer, near, *place = responder.recording(str(wav))
    assert "your recording" in answer
    assert "keeps no training clips" in near
    assert place == ["", None]
    assert "bell, drone, horn" in responder.file(None)[0]


def broken(content, name):
    raise RuntimeError("secret")


@pytest.mark.parametrize(
    ("decoder", "name", "content", "message"),
    [
        (decode, "gone.wav", None, "gone.wav: the server has deleted the file"),
        (decode, "empty.wav", "", "empty.wav: is empty"),
        (decode, "text.wav", "no media", "text.wav: "),
        (broken, "text.wav", "no media", "The server failed"),
    ],
)
def test_errors_name_the_file(classifier, tmp_path, caplog, decoder, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    answer, near, _, plot = Responder(classifier, None, decoder).file(str(tmp_path / name))
    assert message in text_of(answer)
    assert near == "" and "your audio" not in plot.plot
    assert "secret" not in answer and str(tmp_path) not in answer
    assert ("secret" in caplog.text) == (decoder is broken)
