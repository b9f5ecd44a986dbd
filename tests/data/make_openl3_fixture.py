"""How openl3_reference.npz and openl3_keras.h5.gz were made: the package openl3 0.4.2, run by
TensorFlow with random weights (its own cannot be part of this repository's tests).

    pip install tensorflow==2.21.0 librosa soundfile scikit-image h5py
    pip install --no-deps kapre==0.3.6 resampy==0.4.3
    PYTHONPATH=<folder of openl3's source> python make_openl3_fixture.py

The source suffices: the weights are those of tests/encoders/untrained_openl3.py, written as .h5 and
loaded by the package. The archive holds `<audio or image>/<dim>/<item>`. The .h5 is what Keras
itself writes for the sound network, each tensor filled with its number in `get_weights()`.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import openl3
from keras.src.legacy.saving import legacy_h5_format
from openl3_items import SAMPLE_RATE, pictures, sounds

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "encoders"))
from untrained_openl3 import write_untrained


def main() -> None:
    """Write the two files beside this script."""
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(write_untrained("openl3_audio", Path(folder)))
        for dim in (6144, 512):
            model = openl3.models.load_audio_embedding_model_from_path(path, "mel256", dim)
            for name, sound in sounds().items():
                found, _ = openl3.get_audio_embedding(
                    sound, SAMPLE_RATE, model, center=False, hop_size=1.0, verbose=False
                )
                arrays[f"audio/{dim}/{name}"] = found[0]
        path = str(write_untrained("openl3_image", Path(folder)))
        for dim in (8192, 512):
            model = openl3.models.load_image_embedding_model_from_path(path, dim)
            for name, picture in pictures().items():
                found = openl3.get_image_embedding(picture, model=model, verbose=False)
                arrays[f"image/{dim}/{name}"] = found[0]
    for name, value in arrays.items():
        print(name, value.shape, f"{value.min():.3f} … {value.max():.3f}, std {value.std():.3f}")
    target = Path(__file__).with_name("openl3_reference.npz")
    np.savez_compressed(target, **arrays)
    print(target, target.stat().st_size, "bytes")
    write_numbered(Path(__file__).with_name("openl3_keras.h5.gz"))


def write_numbered(target: Path) -> None:
    """The sound network as Keras writes it, its tensors filled with their numbers."""
    model = openl3.models._construct_mel256_audio_network()
    print(f"{model.count_params():,} parameters")
    values = model.get_weights()
    model.set_weights([np.full_like(value, i) for i, value in enumerate(values)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "numbered.h5"
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
        target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
