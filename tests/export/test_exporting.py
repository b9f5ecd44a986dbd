"""Exports of small classifiers: written, read, run, compared and refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from anymodal import encoders
from anymodal.cli import app
from anymodal.encoders.efficientnet_lite import EfficientNet, EfficientNetLiteEncoder
from anymodal.encoders.musicnn import MusiCNN, MusicnnEncoder
from anymodal.errors import AnymodalError
from anymodal.items import Limits, Sound
from anymodal.onnx import OnnxClassifier, export, parity
from anymodal.onnx.manifest import Manifest
from onnxed import CLASSES, TinyPicture, TinySound, classifier_of, tiny


class Foreign:
    """An encoder that is no network of PyTorch's."""

    name, modality, dim, version = "foreign", "image", 4, "f1"
    sample_rate, image_size = None, 8

    def embed(self, batch):
        return np.stack([item.reshape(-1, 3).mean(axis=0) for item in batch]).astype("f") @ WIDE

    def save_weights(self, path):
        path.write_bytes(b"")


WIDE = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def classifier():
    return tiny()


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "made" / "export"
    export(classifier, folder, check=items()[:2])
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    return OnnxClassifier.load(folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """2.6 s of a picture that changes, with a tone."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        for number in range(26):
            pixels = np.full((48, 64, 3), 9 * number, np.uint8)
            for packet in video.encode(av.VideoFrame.from_ndarray(pixels)):
                container.mux(packet)
        time = np.arange(int(2.6 * 16_000)) / 16_000
        tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
            for packet in audio.encode(frame):
                container.mux(packet)
        for stream in (video, audio):
            for packet in stream.encode():
                container.mux(packet)
    return path


def items():
    rng = np.random.default_rng(4)
    sounds = [
        Sound(rng.uniform(-level, level, int(seconds * 8000)).astype(np.float32), 8000)
        for level, seconds in ((0.5, 1), (0.01, 3.7), (0.9, 0.2))
    ]
    pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 60, 3), (9, 5, 3))]
    plain = np.full((50, 50, 3), 90, np.uint8)
    return [sounds[0], pictures[0], sounds[1], plain, pictures[1], sounds[2]]


def test_answers_are_the_classifiers_own(classifier, exported, film):
    mixed = [*items(), film]
    for limits in (None, Limits(moments=2)):
        expected, got = classifier.predict(mixed, limits), exported.predict(mixed, limits)
        for one, other in zip(got, expected, strict=True):
            assert one.as_dict().keys() == other.as_dict().keys()
            assert (one.item, one.modality, one.known, one.answer) == (
                other.item, other.modality, other.known, other.answer,
            )  # fmt: skip
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)
            assert len(one.moments) == len(other.moments)
            for here, there in zip(one.moments, other.moments, strict=True):
                np.testing.assert_allclose(here.probabilities, there.probabilities, atol=1e-3)
                assert (here.start_s, here.modality, here.known) == (
                    there.start_s, there.modality, there.known,
                )  # fmt: skip
    # the comparison is of answers that differ from each other
    assert len({tuple(one.probabilities) for one in expected}) > 4
    assert {one.known for one in expected} == {True, False}
    assert len(expected[-1].novelty) == 2 and expected[-1].modality == got[-1].modality
    np.testing.assert_allclose(
        exported.predict_proba(mixed), classifier.predict_proba(mixed), atol=1e-3
    )
    assert list(exported.classes_) == list(classifier.classes_) == list(CLASSES)


def test_no_items_no_answers(exported):
    assert exported.predict([]) == []
    assert exported.predict_proba([]).shape == (0, len(CLASSES))
    none = exported.run("image", np.empty((0, 24, 24, 3), np.uint8))
    assert none.votes.shape == none.probabilities.shape == (0, 4)
    assert none.joint.shape == (0, 8) and none.novelty.shape == (0,)
    with pytest.raises(AnymodalError, match=r"write \[item\]"):
        exported.predict("photo.jpg")


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 40])
def test_any_number_of_rows(classifier, exported, rows):
    pictures = parity.random_items(classifier.networks["image"], rows, np.random.default_rng(rows))
    seen = np.concatenate([exported.prepare("image", one) for one in pictures])
    embeddings = classifier.networks["image"].embed(pictures)
    got, head = exported.run("image", seen), exported.run_head("image", embeddings)
    joint = classifier.projection.project("image", embeddings)
    np.testing.assert_allclose(got.joint, joint, atol=1e-5)
    np.testing.assert_allclose(head.joint, joint, atol=1e-7)
    np.testing.assert_array_equal(head.votes, classifier.forest.predict_proba(head.joint))
    assert got.probabilities.dtype == np.float64 and len(got.novelty) == rows


def test_a_long_sound_is_several_windows(exported):
    seen = exported.prepare("audio", np.zeros(9000, np.float32))
    assert seen.shape == (3, 4000)
    assert exported.prepare("audio", np.ones(5, np.float32)).shape == (1, 4000)


def test_the_runner_needs_neither_pytorch_nor_scikit_learn(folder, film):
    script = (
        "import sys, numpy as np\n"
        "from anymodal.onnx import OnnxClassifier\n"
        "found = OnnxClassifier.load(sys.argv[1], threads=1)\n"
        "picture = np.zeros((30, 30, 3), np.uint8)\n"
        "print(found.predict_proba([sys.argv[2], picture]).shape)\n"
        "print([name for name in ('torch', 'sklearn', 'mlflow', 'onnx') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(film)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["(2, 4)", "[]"]


def test_the_folder_tells_everything(folder, classifier):
    names = {"audio.onnx", "image.onnx", "audio_head.onnx", "image_head.onnx", "onnx.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in folder.parent.iterdir()] == ["export"]
    told = json.loads((folder / "onnx.json").read_text())
    assert told["format"] == 1 and told["classes"] == list(CLASSES)
    assert told["models"]["audio"]["input"] == {
        "name": "audio", "dtype": "float32", "shape": ["n", 4000], "range": [-1.0, 1.0],
        "sample_rate": 4000,
    }  # fmt: skip
    assert told["models"]["image"]["preparation"]["kind"] == "central_square"
    assert told["encoders"]["image"]["version"] == classifier.networks["image"].version
    assert told["opsets"] == {"ai.onnx": 18, "ai.onnx.ml": 3}
    assert told["judge"]["temperatures"] == {"audio": 1.7, "image": 0.6}
    assert told["facts"]["pairing"] == "class"
    assert told["parity"]["random_rows"]["audio"]["rows"] > 0
    assert told["parity"]["items"]["items"] == 2
    for name, one in told["models"].items():
        model = onnx.load(folder / one["file"])
        props = {prop.key: prop.value for prop in model.metadata_props}
        assert json.loads(props["classes"]) == list(CLASSES)
        assert [out.name for out in model.graph.output] == list(told["outputs"]), name
        assert str(folder.parents[2]).encode() not in model.SerializeToString()


def test_the_same_classifier_gives_the_same_files(classifier, folder, tmp_path):
    export(classifier, tmp_path / "again", check=items()[:2])
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_heads_alone(classifier, tmp_path):
    manifest = export(classifier, tmp_path / "heads", encoders=False)
    assert set(manifest.models) == {"audio_head", "image_head"}
    heads = OnnxClassifier.load(tmp_path / "heads")
    embeddings = classifier.networks["audio"].embed([np.zeros(4000, np.float32)])
    assert heads.run_head("audio", embeddings).probabilities.shape == (1, 4)
    with pytest.raises(AnymodalError, match=r"only the head of audio .*tiny_sound.*run_head"):
        heads.predict([items()[0]])


def test_an_encoder_that_is_no_pytorch_network_has_a_head_alone(tmp_path):
    mixed = classifier_of({"audio": TinySound(), "image": Foreign()})
    manifest = export(mixed, tmp_path / "mixed", check=items()[:1])
    assert set(manifest.models) == {"audio", "audio_head", "image_head"}
    assert manifest.left_out == {"image": "foreign is not a PyTorch network"}
    found = OnnxClassifier.load(tmp_path / "mixed")
    assert found.predict([items()[0]])[0].modality == "audio"
    with pytest.raises(AnymodalError, match="foreign is not a PyTorch network"):
        found.predict([items()[1]])


def test_other_folders_are_left_alone(classifier, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(AnymodalError, match="something else than an export"):
        export(classifier, tmp_path / "notes", encoders=False)
    with pytest.raises(AnymodalError, match="is a file"):
        export(classifier, tmp_path / "notes" / "mine.txt", encoders=False)
    export(classifier, tmp_path / "heads", encoders=False)
    (tmp_path / "heads" / "old.onnx").write_bytes(b"old")
    export(classifier, tmp_path / "heads", encoders=False)
    assert not (tmp_path / "heads" / "old.onnx").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads", "notes"]


def test_a_difference_is_found_and_nothing_is_left(exported, classifier, tmp_path, monkeypatch):
    other = classifier_of({"audio": TinySound(seed=9), "image": TinyPicture()})
    rows = parity.compare_rows(other, exported, seed=0)
    with pytest.raises(AnymodalError, match=r"audio\.onnx differs .* joint by"):
        rows["audio"].check("audio")
    whole = parity.compare_items(other, exported, [items()[0]])
    assert whole.probabilities > 0.05
    with pytest.raises(AnymodalError, match=r"<sound> differs by .* more than 0.05"):
        whole.check(0.05)
    # the same on the way to disk: the forest of another classifier is written
    from anymodal.onnx import head

    made = head.tree_ensemble
    wrong = tiny(forest={"random_state": 5}).forest
    monkeypatch.setattr(head, "tree_ensemble", lambda _, *names: made(wrong, *names))
    with pytest.raises(AnymodalError, match="votes by .* nothing was written"):
        export(classifier, tmp_path / "wrong", encoders=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["joint", "votes", "calibrated", "novelty"])
def test_each_part_has_its_tolerance(part):
    fine = parity.Rows(1, 0.0, 0.0, 0.0, 0.0, 0, 0.0)
    fine.check("audio")
    for wrong in (0.1, float("nan"), float("inf")):
        rows = parity.Rows(**{**vars(fine), part: wrong})
        with pytest.raises(AnymodalError, match=rf"audio\.onnx .*{part}"):
            rows.check("audio")


def test_broken_exports_are_refused(folder, tmp_path):
    def broken(name):
        shutil.copytree(folder, tmp_path / name)
        return tmp_path / name

    with pytest.raises(AnymodalError, match="no export in"):
        OnnxClassifier.load(tmp_path)
    old = broken("old")
    told = json.loads((old / "onnx.json").read_text())
    (old / "onnx.json").write_text(json.dumps(told | {"format": 9}))
    with pytest.raises(AnymodalError, match="format 9"):
        OnnxClassifier.load(old)
    for text in ("{", "[]", json.dumps({"format": 1}), json.dumps(told | {"judge": None})):
        (old / "onnx.json").write_text(text)
        with pytest.raises(AnymodalError, match="cannot be read"):
            Manifest.read(old)
    lacking = broken("lacking")
    (lacking / "image.onnx").unlink()
    with pytest.raises(AnymodalError, match=r"lacks image\.onnx"):
        OnnxClassifier.load(lacking)
    torn = broken("torn")
    (torn / "image.onnx").write_bytes((folder / "image.onnx").read_bytes()[:999])
    with pytest.raises(AnymodalError, match=r"image\.onnx .*cannot be loaded"):
        OnnxClassifier.load(torn).predict([items()[1]])
    with pytest.raises(AnymodalError, match="one thread"):
        OnnxClassifier.load(folder, threads=0)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (np.zeros((2, 24, 24, 3), np.float32), "takes uint8, not float32"),
        (np.zeros((24, 24, 3), np.uint8), r"\(n, 24, 24, 3\), not uint8 of shape \(24, 24, 3\)"),
        ([[1.0]], "not list of shape"),
    ],
)
def test_rows_of_another_form_are_refused(exported, rows, what):
    with pytest.raises(AnymodalError, match=what):
        exported.run("image", rows)


def test_embeddings_that_are_no_numbers_are_refused(exported):
    with pytest.raises(AnymodalError, match="finite"):
        exported.run_head("audio", np.full((1, 12), np.nan, np.float32))


def test_missing_packages_are_named(classifier, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(AnymodalError, match=r"needs onnxruntime: pip install 'anymodal\[onnx\]'"):
        export(classifier, tmp_path / "export")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A classifier on disk, of encoders that are registered, untrained."""
    folder = tmp_path_factory.mktemp("saved") / "classifier"
    sound, sight = encoders.info("musicnn_mtt"), encoders.info("efficientnet_lite0")
    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = torch.nn.Identity()
    networks = {
        "audio": MusicnnEncoder(sound, MusiCNN(), "cpu"),
        "image": EfficientNetLiteEncoder(sight, network, "cpu"),
    }
    classifier_of(networks, items=8).save(folder)
    return folder


def cli(*words):
    return CliRunner().invoke(app, ["export", *map(str, words)])


def test_command_line(saved, tmp_path):
    done = cli(tmp_path / "out", "--model", saved, "--heads-only")
    assert done.exit_code == 0, (done.output, done.exception)
    assert "audio_head.onnx" in done.output and "4 classes" in done.output
    assert "image: the head alone, for heads alone were asked for" in done.output
    assert OnnxClassifier.load(tmp_path / "out").classes == CLASSES


def test_command_line_refuses(saved, tmp_path):
    for words, what in (
        ((tmp_path / "x", "--model", tmp_path), "no classifier at"),
        ((tmp_path / "x", "--model", saved, "--heads-only", "--check", saved), "leave one out"),
        ((tmp_path / "x", "--model", saved, "--check", saved), "holds no sound, picture"),
        ((tmp_path / "x", "--model", saved, "--tolerance", "0"), "above 0"),
    ):
        done = cli(*words)
        assert done.exit_code == 1 and isinstance(done.exception, AnymodalError), done.output
        assert what in str(done.exception)
    assert list(tmp_path.iterdir()) == []
