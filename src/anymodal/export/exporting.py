"""Writing an export: the models, what goes in and comes out, and how they compare."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from anymodal import __version__
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.errors import AnymodalError
from anymodal.items import Item
from anymodal.onnx import parity
from anymodal.onnx.manifest import FILE, Manifest, ModelFile
from anymodal.onnx.runner import OnnxClassifier
from anymodal.storage import write_bytes, write_json

if TYPE_CHECKING:
    import onnx

    from anymodal.encoders.torch_encoder import TorchEncoder
    from anymodal.model import ModalityAgnosticClassifier


def export(
    classifier: ModalityAgnosticClassifier,
    folder: str | Path,
    encoders: bool = True,
    *,
    check: Iterable[Item] = (),
    tolerance: float = parity.TOLERANCE,
    seed: int = 0,
) -> Manifest:
    """Write `classifier` as ONNX models into `folder`, replacing an export that is there; atomic.

    Parameters
    ----------
    classifier: one whose encoders are PyTorch networks is written from sound or picture to
        probabilities; of others there is the head alone, and `Manifest.left_out` says why.
    encoders: False: heads alone.
    check: items that the export's answers are compared on, besides random rows.
    tolerance: difference of a probability that those may have.
    seed: of the random rows.

    Raises `AnymodalError`, and leaves nothing behind, where a package is missing, PyTorch cannot
    export a network, or the export differs from the classifier (`anymodal.onnx.parity`).
    """
    folder = Path(folder)
    _check_target(folder)
    if not tolerance > 0:
        raise AnymodalError(f"the tolerance must be above 0, not {tolerance}")
    _check_packages(encoders)
    models, files, left_out = _models(classifier, encoders)
    manifest = Manifest(
        classes=classifier.classes,
        sample_rate=classifier.sample_rate,
        models=files,
        judge=classifier.judge,
        encoders={
            m: {"name": network.name, "version": network.version, "dim": network.dim}
            for m, network in classifier.networks.items()
        },
        left_out=left_out,
        opsets=_opsets(models),
        facts=classifier.facts,
        anymodal=__version__,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        staged = Path(name) / "new"
        staged.mkdir()
        for key, model in models.items():
            write_bytes(staged / files[key].file, model.SerializeToString(deterministic=True))
        write_json(staged / FILE, manifest.as_dict())
        manifest = replace(manifest, parity=_parity(classifier, staged, check, tolerance, seed))
        write_json(staged / FILE, manifest.as_dict())
        if folder.exists():
            folder.replace(Path(name) / "old")
        staged.replace(folder)
    return manifest


def _parity(
    classifier: ModalityAgnosticClassifier,
    folder: Path,
    check: Iterable[Item],
    tolerance: float,
    seed: int,
) -> dict[str, Any]:
    exported = OnnxClassifier.load(folder)
    rows = parity.compare_rows(classifier, exported, seed)
    for name, one in rows.items():
        one.check(name)
    items = parity.compare_items(classifier, exported, check)
    items.check(tolerance)
    return parity.as_dict(rows, items)


def _models(
    classifier: ModalityAgnosticClassifier, encoders: bool
) -> tuple[dict[str, onnx.ModelProto], dict[str, ModelFile], dict[Modality, str]]:
    """Models by name with what goes into them, and why modalities have a head alone."""
    from anymodal.onnx.head import INPUT, head

    models: dict[str, onnx.ModelProto] = {}
    files: dict[str, ModelFile] = {}
    left_out: dict[Modality, str] = {}
    for modality in MODALITIES:
        encoder = classifier.networks[modality]
        name = f"{modality}_head"
        files[name] = ModelFile(f"{name}.onnx", INPUT, "float32", (encoder.dim,))
        models[name] = head(classifier.projection, classifier.forest, modality, classifier.judge)
        if not encoders:
            left_out[modality] = "heads alone were asked for"
            continue
        from anymodal.onnx import networks

        reason = networks.obstacle(encoder)
        if reason is not None:
            left_out[modality] = reason
            continue
        own = cast("TorchEncoder", encoder)
        files[modality], seen = _input(own)
        models[modality] = networks.joined(networks.network(own, seen), models[name])
    for name, model in models.items():
        _mark(model, classifier, name)
    return models, files, left_out


def _input(encoder: TorchEncoder) -> tuple[ModelFile, np.ndarray]:
    """What goes into an encoder's model, and three rows of it."""
    from anymodal.onnx.preparation import told_of

    items = parity.random_items(encoder, 3, np.random.default_rng(0))
    seen = np.concatenate([encoder.prepare(item) for item in items])
    told = told_of(encoder)
    span = None
    if encoder.modality == "audio" and told is not None:
        span = (-1.0, 1.0)
    elif seen.dtype == np.uint8:
        span = (0.0, 255.0)
    elif told is not None and told["kind"] == "openl3":
        span = (-1.0, 1.0)
    model = ModelFile(
        file=f"{encoder.modality}.onnx",
        input=encoder.modality,
        dtype=str(seen.dtype),
        shape=seen.shape[1:],
        range=span,
        sample_rate=encoder.sample_rate,
        preparation=told,
    )
    return model, seen


def _mark(model: onnx.ModelProto, classifier: ModalityAgnosticClassifier, name: str) -> None:
    from anymodal.onnx.graph import marked

    encoder = classifier.networks["audio" if name.startswith("audio") else "image"]
    marked(
        model,
        {
            "anymodal": __version__,
            "classes": json.dumps(classifier.classes),
            "encoder": f"{encoder.name} {encoder.version}",
        },
    )


def _opsets(models: dict[str, onnx.ModelProto]) -> dict[str, int]:
    used = {one.domain or "ai.onnx": one.version for m in models.values() for one in m.opset_import}
    return dict(sorted(used.items()))


def _check_target(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise AnymodalError(f"{folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FILE).is_file():
        raise AnymodalError(f"{folder} holds something else than an export; name another folder")


def _check_packages(encoders: bool) -> None:
    needed = ("onnx", "onnxruntime", *(("onnxscript",) if encoders else ()))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise AnymodalError(f"exporting needs {', '.join(missing)}: pip install 'anymodal[onnx]'")
