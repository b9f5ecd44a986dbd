"""Exports of small classifiers: written, read, run, compared and refused."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.export import OnnxClassifier, export, head, networks, parity
from anymodal.export.manifest import FILE
from anymodal.media.segmentation import Audio, Limits
from helpers.encoded import encoded_video, tone
from helpers.exported import CLASSES, TinyAudio, TinyImage, classifier_of, tiny

HEADS = {"audio_head", "image_head"}
WIDE = np.arange(12, dtype=np.float32).reshape(3, 4)


class Foreign:
    """An encoder that is no PyTorch network."""

    name, modality, dim, version = "foreign", "image", 4, "f1"
    sample_rate, image_size = None, 8

    def embed(self, batch):
        return np.stack([item.reshape(-1, 3).mean(axis=0) for item in batch]).astype("f") @ WIDE


@pytest.fixture(scope="module")
def classifier():
    return tiny()


@pytest.fixture(scope="module")
def exported_networks():
    """PyTorch's exporter takes seconds: each network is exported once for all tests here."""
    cache, export_network = {}, networks.network

    def cached(encoder, prepared):
        if encoder.version not in cache:
            cache[encoder.version] = export_network(encoder, prepared)
        return cache[encoder.version]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "network", cached)
        yield cache


@pytest.fixture(scope="module")
def folder(classifier, exported_networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "new" / "export"
    export(classifier, folder, check=items()[:2])
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    return OnnxClassifier.load(folder)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """2.6 s of a frame that changes, with a tone."""
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    sound = ("aac", 0.6 * tone(16_000, 2.6)[:, 0], 16_000)
    path.write_bytes(encoded_video("mp4", "mpeg4", sound, 26))
    return path


def items():
    rng = np.random.default_rng(4)
    audio = [
        Audio(rng.uniform(-level, level, int(seconds * 8000)).astype(np.float32), 8000)
        for level, seconds in ((0.5, 1), (0.01, 3.7), (0.9, 0.2))
    ]
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 60, 3), (9, 5, 3))]
    plain = np.full((50, 50, 3), 90, np.uint8)
    return [audio[0], images[0], audio[1], plain, images[1], audio[2]]


@pytest.mark.slow
@pytest.mark.parametrize("limits", [None, Limits(windows=2)])
def test_answers_are_those_of_the_classifier(classifier, exported, video, limits):
    mixed = [*items(), video]
    expected = classifier.predict(mixed, limits)
    for got, theirs in zip(exported.predict(mixed, limits), expected, strict=True):
        assert (got.item, got.answer) == (theirs.item, theirs.answer)
        for ours, other in [(got, theirs), *zip(got.windows, theirs.windows, strict=True)]:
            np.testing.assert_allclose(ours.probabilities, other.probabilities, atol=1e-3)
            assert (ours.modality, ours.known) == (other.modality, other.known)
    # the answers differ from each other
    assert len({tuple(prediction.probabilities) for prediction in expected}) > 4
    assert {prediction.known for prediction in expected} == {True, False}


@pytest.mark.slow
def test_any_number_of_rows(classifier, exported):
    encoder = classifier.networks["image"]
    images = parity.random_items(encoder, 40, np.random.default_rng(0))
    prepared = np.concatenate([exported.prepare("image", image) for image in images])
    embeddings = encoder.embed(images)
    joint = classifier.projection.project("image", embeddings)
    for rows in (40, 17, 16, 1, 0):
        got = exported.run("image", prepared[:rows])
        of_head = exported.run_head("image", embeddings[:rows])
        np.testing.assert_allclose(got.joint, joint[:rows], atol=1e-5)
        np.testing.assert_allclose(of_head.joint, joint[:rows], atol=1e-7)
        np.testing.assert_array_equal(of_head.votes, classifier.votes(of_head.joint))
        assert got.novelty.shape == (rows,)
        assert got.votes.shape == got.probabilities.shape == (rows, 4)
    assert exported.predict_proba([]).shape == (0, len(CLASSES))


@pytest.mark.slow
def test_the_runner_needs_neither_pytorch_nor_scikit_learn(folder, video):
    script = (
        "import sys; from anymodal.export import OnnxClassifier\n"
        "classifier = OnnxClassifier.load(sys.argv[1], threads=1)\n"
        "print(classifier.predict_proba([sys.argv[2]]).shape)\n"
        "print([name for name in ('torch', 'sklearn', 'mlflow', 'onnx') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(video)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["(1, 4)", "[]"]


@pytest.mark.slow
def test_the_manifest_describes_the_export(folder, classifier):
    assert {path.stem for path in folder.iterdir()} == {"audio", "image", *HEADS, "onnx"}
    assert [path.name for path in folder.parent.iterdir()] == ["export"]
    values = json.loads((folder / "onnx.json").read_text())
    assert values["format"] == 2 and values["classes"] == list(CLASSES)
    assert values["models"]["audio"]["input"] == {
        "name": "audio", "dtype": "float32", "shape": ["n", 4000], "range": [-1.0, 1.0],
        "sample_rate": 4000,
    }  # fmt: skip
    assert values["encoders"]["image"]["version"] == classifier.networks["image"].version
    assert values["opsets"] == {"ai.onnx": 18, "ai.onnx.ml": 3}
    assert values["calibrator"]["temperatures"] == {"audio": 1.7, "image": 0.6}
    assert values["parity"]["items"]["items"] == 2
    for name, described in values["models"].items():
        model = onnx.load(folder / described["file"])
        properties = {prop.key: prop.value for prop in model.metadata_props}
        assert json.loads(properties["classes"]) == list(CLASSES)
        assert [out.name for out in model.graph.output] == list(values["outputs"]), name
        assert str(folder.parents[2]).encode() not in model.SerializeToString()


@pytest.mark.slow
def test_the_same_classifier_gives_the_same_files(classifier, folder, exported_networks, tmp_path):
    exported_networks.clear()
    export(classifier, tmp_path / "again", check=items()[:2])
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_heads_alone(classifier, tmp_path):
    manifest = export(classifier, tmp_path / "heads", encoders=False)
    assert set(manifest.models) == HEADS
    heads = OnnxClassifier.load(tmp_path / "heads")
    assert heads.manifest == manifest
    embeddings = classifier.networks["audio"].embed([np.zeros(4000, np.float32)])
    assert heads.run_head("audio", embeddings).probabilities.shape == (1, 4)
    with pytest.raises(AnymodalError, match="only the head of audio .*tiny_audio.*run_head"):
        heads.predict([items()[0]])


@pytest.mark.slow
def test_an_encoder_that_is_no_pytorch_network_has_a_head_alone(exported_networks, tmp_path):
    mixed = classifier_of({"audio": TinyAudio(), "image": Foreign()})
    manifest = export(mixed, tmp_path / "mixed", check=items()[:1])
    assert set(manifest.models) == {"audio", *HEADS}
    assert manifest.left_out == {"image": "foreign is not a PyTorch network"}
    loaded = OnnxClassifier.load(tmp_path / "mixed")
    assert loaded.predict([items()[0]])[0].modality == "audio"
    with pytest.raises(AnymodalError, match="foreign is not a PyTorch network"):
        loaded.predict([items()[1]])


def test_other_folders_are_left_alone(classifier, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    for path in (tmp_path / "notes", tmp_path / "notes" / "mine.txt"):
        with pytest.raises(AnymodalError, match="is not an export"):
            export(classifier, path, encoders=False)
    with pytest.raises(AnymodalError, match="above 0"):
        export(classifier, tmp_path / "new", encoders=False, tolerance=0)
    export(classifier, tmp_path / "heads", encoders=False)
    (tmp_path / "heads" / "old.onnx").write_bytes(b"old")
    export(classifier, tmp_path / "heads", encoders=False)
    assert not (tmp_path / "heads" / "old.onnx").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads", "notes"]


@pytest.mark.slow
def test_a_difference_is_found_and_nothing_is_left(exported, classifier, tmp_path, monkeypatch):
    other = classifier_of({"audio": TinyAudio(seed=9), "image": TinyImage()})
    rows = parity.compare_rows(other, exported)
    with pytest.raises(AnymodalError, match=r"audio\.onnx differs .* joint by"):
        rows["audio"].check("audio")
    with pytest.raises(AnymodalError, match="differs by .* more than 0.01"):
        parity.compare_items(other, exported, [items()[0]], 0.01)
    # the same on the way to disk: the forest of another classifier is written
    wrong, node = tiny(forest={"random_state": 5}).forest, head.tree_ensemble
    monkeypatch.setattr(head, "tree_ensemble", lambda _, *names: node(wrong, *names))
    with pytest.raises(AnymodalError, match="votes by .* nothing was written"):
        export(classifier, tmp_path / "wrong", encoders=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["joint", "votes", "calibrated", "novelty"])
@pytest.mark.parametrize("wrong", [0.1, float("nan"), float("inf")])
def test_each_part_has_its_tolerance(part, wrong):
    zero = dict.fromkeys(parity.RowParity.model_fields, 0)
    parity.RowParity(**zero).check("audio")
    with pytest.raises(AnymodalError, match=rf"audio\.onnx .*{part}"):
        parity.RowParity(**zero | {part: wrong}).check("audio")


@pytest.mark.slow
def test_damaged_exports_are_refused(folder, tmp_path):
    with pytest.raises(AnymodalError, match="no export in"):
        OnnxClassifier.load(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    values = json.loads((copy / FILE).read_text())
    for text in ("{", json.dumps(values | {"format": 1}), json.dumps(values | {"classes": None})):
        (copy / FILE).write_text(text)
        with pytest.raises(AnymodalError, match="run `anymodal export .*` again"):
            OnnxClassifier.load(copy)
    shutil.copy(folder / FILE, copy)
    (copy / "image.onnx").write_bytes((folder / "image.onnx").read_bytes()[:999])
    with pytest.raises(AnymodalError, match=r"image\.onnx .*cannot be loaded"):
        OnnxClassifier.load(copy).predict([items()[1]])
    (copy / "image.onnx").unlink()
    with pytest.raises(AnymodalError, match=r"lacks image\.onnx"):
        OnnxClassifier.load(copy)
    with pytest.raises(AnymodalError, match="threads must be 1"):
        OnnxClassifier.load(folder, threads=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("run", np.zeros((2, 24, 24, 3), np.float32), "takes uint8 .* not float32"),
        ("run", np.zeros((24, 24, 3), np.uint8), r"\(n, 24, 24, 3\), not .* \(24, 24, 3\)"),
        ("run", [[1.0]], "not float64 of shape"),
        ("run_head", np.full((1, 9), np.nan, np.float32), "finite"),
    ],
)
def test_rows_of_another_form_are_refused(exported, name, rows, message):
    with pytest.raises(AnymodalError, match=message):
        getattr(exported, name)("image", rows)


def test_missing_packages_are_named(classifier, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(AnymodalError, match=r"needs onnxruntime: pip install 'anymodal\[onnx\]'"):
        export(classifier, tmp_path / "export")
