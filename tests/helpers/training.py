"""Small rows to train a translation on."""

import numpy as np
import pandas as pd

from anymodal.core.modality import MODALITIES
from anymodal.embeddings.rows import Rows
from anymodal.projection.training_data import TrainingData

CLASSES = ("drums", "piano", "violin")


def rows(modality, split, per_class, clip=False):
    names = [name for name in CLASSES for _ in range(per_class)]
    what = "clip" if clip else modality
    ids = [f"{what}-{split}-{name}-{n}" for n, name in enumerate(names)]
    rng = np.random.default_rng(len(modality))
    place = np.array([CLASSES.index(name) for name in names])
    matrix = np.eye(3)[place] + 0.1 * rng.standard_normal((len(names), 3))
    clips = pd.DataFrame({"clip_id": ids, "instrument": names})
    return Rows(clips, matrix.astype(np.float32), f"{modality} 1")


def training_data(pairing):
    clip = pairing == "clip"
    train = {m: rows(m, "train", 4 if m == "audio" or clip else 6, clip) for m in MODALITIES}
    valid = {m: rows(m, "valid", 2, clip) for m in MODALITIES}
    return TrainingData("ear", "eye", pairing, train, valid, 3)
