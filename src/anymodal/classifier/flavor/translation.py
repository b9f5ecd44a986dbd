"""A translation as a pyfunc.

Input: a table with `modality` (`audio` or `image`) and `embedding` (the encoder's vector).
Output: a table with `joint`: the L2-normalised vector in the joint space.
"""

from __future__ import annotations

from typing import Any

import mlflow.models
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

from anymodal.core.modality import MODALITIES
from anymodal.projection import load_projection


class TranslationModel(PythonModel):
    """Serves a saved translation."""

    def load_context(self, context: Any) -> None:
        """Load the translation's directory, the artifact `projection`."""
        self.projection = load_projection(context.artifacts["projection"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Project every row from its modality's space into the joint space."""
        modality = model_input["modality"].to_numpy()
        unknown = set(modality) - set(MODALITIES)
        if unknown:
            raise ValueError(f"modality {unknown.pop()!r} is none of {', '.join(MODALITIES)}")
        joint = np.empty((len(model_input), self.projection.dim), np.float32)
        for name in MODALITIES:
            rows = np.flatnonzero(modality == name)
            if len(rows):
                vectors = np.stack(model_input["embedding"].iloc[rows].map(np.asarray).to_list())
                joint[rows] = self.projection.project(name, vectors.astype(np.float32))
        return pd.DataFrame({"joint": joint.tolist()})


mlflow.models.set_model(TranslationModel())
