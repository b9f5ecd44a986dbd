"""The classifier as a pyfunc.

Input: a table with the column `content`: bytes of audio or image files (base64 in JSON).
Output: a table with `instrument`, `probability`, `modality`, and one column per class.
"""

from __future__ import annotations

from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc import PythonModel

from anymodal.classifier.model import ModalityAgnosticClassifier


class ClassifierModel(PythonModel):
    """Serves a saved `ModalityAgnosticClassifier`."""

    def load_context(self, context: Any) -> None:
        """Load the classifier's directory, the artifact `classifier`."""
        self.classifier = ModalityAgnosticClassifier.load(context.artifacts["classifier"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Classify every row's `content`."""
        answers = self.classifier.predict([bytes(item) for item in model_input["content"]])
        return pd.DataFrame([answer.as_row() for answer in answers])


mlflow.models.set_model(ClassifierModel())
