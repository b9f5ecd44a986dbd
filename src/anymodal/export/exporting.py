"""Writing an export: the models, their manifest, and the comparison with the classifier."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from anymodal import __version__
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.storage import atomic_folder, write_bytes
from anymodal.export import parity
from anymodal.export.manifest import FILE, Combination, Input, Manifest, ModelFile
from anymodal.export.preparation import preparation_of
from anymodal.export.runner import OnnxClassifier
from anymodal.media.segmentation import Item
from anymodal.projection.artifact import EncoderRef

if TYPE_CHECKING:
    import onnx

    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.encoders.torch_encoder import TorchEncoder


def export(
    classifier: ModalityAgnosticClassifier,
    folder: str | Path,
    encoders: bool = True,
    *,
    check: Iterable[Item] = (),
    tolerance: float = parity.TOLERANCE,
) -> Manifest:
    """Write `classifier` as ONNX models into `folder`, replacing an export that is there; atomic.

    Parameters
    ----------
    encoders: False: heads alone. Encoders that are no PyTorch networks are never written;
        `Manifest.left_out` says why.
    check: items whose answers are compared, besides random rows.
    tolerance: difference of a probability allowed for those.

    Raises `AnymodalError`, and leaves nothing behind, where a package is missing, PyTorch cannot
    export a network, or the export differs from the classifier (`anymodal.export.parity`).
    """
    folder = Path(folder)
    new = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not new and not (folder / FILE).is_file():
        raise AnymodalError(f"{folder} is not an export; name another folder")
    if not tolerance > 0:
        raise AnymodalError(f"the tolerance must be above 0, not {tolerance}")
    needed = ("onnx", "onnxruntime", *(("onnxscript",) if encoders else ()))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise AnymodalError(f"exporting needs {', '.join(missing)}: pip install 'anymodal[onnx]'")
    models, files, left_out = _models(classifier, encoders)
    opsets = {s.domain or "ai.onnx": s.version for m in models.values() for s in m.opset_import}
    manifest = Manifest(
        anymodal=__version__,
        classes=classifier.classes,
        sample_rate=classifier.sample_rate,
        models=files,
        left_out=left_out,
        calibrator=Combination(**classifier.calibrator.model_dump()),
        encoders={m: EncoderRef.of(network) for m, network in classifier.networks.items()},
        opsets=dict(sorted(opsets.items())),
        facts=classifier.facts,
    )
    with atomic_folder(folder) as written:
        for name, model in models.items():
            write_bytes(written / files[name].file, model.SerializeToString(deterministic=True))
        exported = OnnxClassifier(written, manifest)
        rows = parity.compare_rows(classifier, exported)
        for name, of_model in rows.items():
            of_model.check(name)
        items = parity.compare_items(classifier, exported, check, tolerance)
        compared = parity.Parity(random_rows=rows, items=items)
        manifest = manifest.model_copy(update={"parity": compared})
        manifest.write(written / FILE)
    return manifest


def _models(
    classifier: ModalityAgnosticClassifier, encoders: bool
) -> tuple[dict[str, onnx.ModelProto], dict[str, ModelFile], dict[Modality, str]]:
    """The models by name, their inputs, and why modalities have a head alone."""
    from onnx import checker, helper

    from anymodal.export.head import INPUT, head

    models: dict[str, onnx.ModelProto] = {}
    files: dict[str, ModelFile] = {}
    left_out: dict[Modality, str] = {}
    for modality in MODALITIES:
        encoder = classifier.networks[modality]
        name = f"{modality}_head"
        of_head = head(classifier.projection, classifier.forest, modality, classifier.calibrator)
        own = {name: of_head}
        given = Input(name=INPUT, dtype="float32", shape=("n", encoder.dim))
        files[name] = ModelFile(file=f"{name}.onnx", input=given)
        reason: str | None = "only heads were requested"
        if encoders:
            from anymodal.export import networks

            reason = networks.obstacle(encoder)
        if reason is None:
            files[modality], prepared = _input(cast("TorchEncoder", encoder))
            network = networks.network(cast("TorchEncoder", encoder), prepared)
            own[modality] = networks.joined(network, of_head)
        else:
            left_out[modality] = reason
        properties = {
            "anymodal": __version__,
            "classes": json.dumps(classifier.classes),
            "encoder": f"{encoder.name} {encoder.version}",
        }
        for model in own.values():
            helper.set_model_props(model, properties)
            checker.check_model(model)
        models |= own
    return models, files, left_out


def _input(encoder: TorchEncoder) -> tuple[ModelFile, np.ndarray]:
    """What an encoder's model takes, and three rows of it."""
    items = parity.random_items(encoder, 3, np.random.default_rng(0))
    prepared = np.concatenate([encoder.prepare(item) for item in items])
    preparation = preparation_of(encoder)
    in_one = preparation is not None and preparation.kind in ("windows", "openl3")
    given = Input(
        name=encoder.modality,
        dtype=str(prepared.dtype),
        shape=("n", *prepared.shape[1:]),
        range=(0.0, 255.0) if prepared.dtype == np.uint8 else (-1.0, 1.0) if in_one else None,
        sample_rate=encoder.sample_rate,
    )
    model = ModelFile(file=f"{encoder.modality}.onnx", input=given, preparation=preparation)
    return model, prepared
