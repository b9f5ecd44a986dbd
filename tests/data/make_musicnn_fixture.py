"""How musicnn_reference.npz was made: the published graphs, run by TensorFlow.

    pip install tensorflow==2.21.0 "setuptools<81" librosa
    pip download --no-deps musicnn==0.1.0
    python make_musicnn_fixture.py musicnn-0.1.0-py3-none-any.whl

For each network, length and signal it holds `pooled` (1506; vgg: 1280), `penultimate` (200; vgg:
256) and `logits` (50). The vgg graph takes three seconds only: the spectrum of one second is
repeated to that length. It has no pooled features: maximum and mean are taken here, of the maps
that it normalises.
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

FRAMES = 187
MUSICNN = {
    "pooled": "model/Flatten/flatten/Reshape:0",
    "penultimate": "model/batch_normalization_10/batchnorm/add_1:0",
    "logits": "model/dense_1/BiasAdd:0",
}
VGG = {
    "penultimate": "model/Flatten/flatten/Reshape:0",
    "logits": "model/dense/BiasAdd:0",
    **{f"map{i}": f"model/batch_normalization_{i}/cond/Merge:0" for i in range(1, 6)},
}
OUTPUTS = {"MTT_musicnn": MUSICNN, "MSD_musicnn": MUSICNN, "MTT_vgg": VGG}


def main(wheel: str) -> None:
    """Write the fixture beside this script."""
    tf.disable_eager_execution()
    arrays = {}
    for network in OUTPUTS:
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
    wanted = [name.split(":")[0] for name in OUTPUTS[network].values()]
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
                if network == "MTT_vgg":
                    batch = np.tile(batch, (1, 3, 1))[:, :FRAMES]
                values = session.run(OUTPUTS[network], {spectra: batch, training: False})
                if network == "MTT_vgg":
                    maps = [values.pop(f"map{i}") for i in range(1, 6)]
                    # numpy's float32 mean over the first axes loses digits
                    both = [
                        f(m.astype(float), axis=(1, 2)) for m in maps for f in (np.max, np.mean)
                    ]
                    values["pooled"] = np.concatenate(both, axis=1).astype(np.float32)
                for output, value in values.items():
                    arrays[f"{network}/{length}/{signal}/{output}"] = value[0]
    return arrays


if __name__ == "__main__":
    main(sys.argv[1])
