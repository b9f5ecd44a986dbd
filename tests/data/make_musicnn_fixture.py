"""How musicnn_reference.npz was made: the published graphs, run by TensorFlow.

    pip install tensorflow==2.21.0 "setuptools<81" librosa
    pip download --no-deps musicnn==0.1.0
    python make_musicnn_fixture.py musicnn-0.1.0-py3-none-any.whl

For each network, length and signal it holds `pooled` (1506), `penultimate` (200) and `logits` (50).
The graph is the one that the wheel's `.meta` file holds, without its gradients (which current
TensorFlow refuses to import) and with an input of any length; the log-mel input is librosa's.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

import librosa
import numpy as np
import tensorflow.compat.v1 as tf
from musicnn_signals import LENGTHS, SAMPLE_RATE, signals

OUTPUTS = {
    "pooled": "model/Flatten/flatten/Reshape:0",
    "penultimate": "model/batch_normalization_10/batchnorm/add_1:0",
    "logits": "model/dense_1/BiasAdd:0",
}


def main(wheel: str) -> None:
    """Write the fixture beside this script."""
    tf.disable_eager_execution()
    arrays = {}
    for network in ("MTT_musicnn", "MSD_musicnn"):
        with tempfile.TemporaryDirectory() as folder:
            prefix = Path(folder) / "m"
            with zipfile.ZipFile(wheel) as archive:
                for suffix in (".meta", ".index", ".data-00000-of-00001"):
                    content = archive.read(f"musicnn/{network}/{suffix}")
                    Path(f"{prefix}{suffix}").write_bytes(content)
            arrays.update(run(network, str(prefix)))
    path = Path(__file__).with_name("musicnn_reference.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {len(arrays)} arrays, {path.stat().st_size} bytes")


def run(network: str, prefix: str) -> dict[str, np.ndarray]:
    """Outputs of one network for every signal: `<network>/<length>/<signal>/<output>`."""
    meta = tf.MetaGraphDef()
    meta.ParseFromString(Path(f"{prefix}.meta").read_bytes())
    wanted = [name.split(":")[0] for name in OUTPUTS.values()]
    graph_def = tf.graph_util.extract_sub_graph(meta.graph_def, [*wanted, "save/restore_all"])
    for node in graph_def.node:
        node.attr.pop("_output_shapes", None)
    placeholders = {
        node.attr["dtype"].type: node.name
        for node in graph_def.node
        if node.op == "Placeholder" and node.name.startswith("model/")
    }
    arrays = {}
    with tf.Graph().as_default(), tf.Session() as session:
        spectra = tf.placeholder(tf.float32, [None, None, 96])
        spectra_name = placeholders[tf.float32.as_datatype_enum]
        tf.import_graph_def(graph_def, {f"{spectra_name}:0": spectra}, name="")
        training = f"{placeholders[tf.bool.as_datatype_enum]}:0"
        session.run("save/restore_all", {"save/Const:0": prefix})
        for length, samples in LENGTHS.items():
            for signal, audio in signals(samples).items():
                mel = librosa.feature.melspectrogram(
                    y=audio, sr=SAMPLE_RATE, n_fft=512, hop_length=256, n_mels=96
                )
                batch = np.log10(10000 * mel.T + 1)[None]
                values = session.run(OUTPUTS, {spectra: batch, training: False})
                for output, value in values.items():
                    arrays[f"{network}/{length}/{signal}/{output}"] = value[0]
    return arrays


if __name__ == "__main__":
    main(sys.argv[1])
