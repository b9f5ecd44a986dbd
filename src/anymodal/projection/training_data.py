"""The rows that a pair's translations are trained and validated on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from anymodal.config.params import TranslateParams
from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import fingerprint
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.record import Pairing
from anymodal.core.workspace import pair_name
from anymodal.data.pairing import Pairs, PairSampler
from anymodal.embeddings.rows import PairRows
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.training import TrainingResult, train_translation
from anymodal.projection.translation import Translation


@dataclass(frozen=True)
class TrainingData:
    """Training and validation rows of the translation subset, embedded by a pair of encoders."""

    audio: str
    image: str
    pairing: Pairing
    train: PairRows
    valid: PairRows
    pairs_seed: int
    """Draws the pairs of the validation loss."""

    @property
    def pair(self) -> str:
        """The pair's name."""
        return pair_name(self.audio, self.image)

    @cached_property
    def sampler(self) -> PairSampler:
        """Draws an epoch's pairs of training rows."""
        audio, image = _classes(self.train)
        return PairSampler(audio, image, self.pairing)

    @cached_property
    def valid_pairs(self) -> Pairs:
        """The pairs of the validation loss."""
        audio, image = _classes(self.valid)
        sampler = PairSampler(audio, image, self.pairing)
        return sampler.epoch(np.random.default_rng(self.pairs_seed))

    def without(self, clip_ids: Set[str]) -> TrainingData:
        """The same without some clips and, with class pairing, without the classes that are then
        left with one modality. Raises `AnymodalError` where `shortage` gives a reason."""
        if reason := self.shortage(clip_ids):
            raise AnymodalError(reason)
        train, valid = (
            {m: rows[m].take(kept) for m, kept in self._kept(rows, clip_ids).items()}
            for rows in (self.train, self.valid)
        )
        return replace(self, train=train, valid=valid)

    def shortage(self, clip_ids: Set[str]) -> str:
        """Why the data without these clips cannot train a translation; "" where they can."""
        for rows, split in ((self.train, "training"), (self.valid, "validation")):
            kept = self._kept(rows, clip_ids)
            if self.pairing == "clip":
                left = int(kept["audio"].sum())
            else:
                left = rows["audio"].clips.loc[kept["audio"], "instrument"].nunique()
            if left < 2:
                what = "pairs" if self.pairing == "clip" else "classes"
                return f"fewer than two {what} would be left in the translation's {split} rows"
        return ""

    def fit(
        self,
        settings: TranslateParams,
        seed: int,
        checkpoint: Path | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        measure: Callable[[Translation], Mapping[str, float]] | None = None,
    ) -> TrainingResult:
        """Train one translation; see `train_translation`."""
        # one matrix per modality: the validation rows follow the training rows
        count = {m: len(self.train[m].matrix) for m in MODALITIES}
        valid_pairs = self.valid_pairs._replace(
            audio=self.valid_pairs.audio + count["audio"],
            image=self.valid_pairs.image + count["image"],
        )
        return train_translation(
            self._stacked["audio"],
            self._stacked["image"],
            self.sampler.epoch,
            valid_pairs,
            settings,
            seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            measure=measure,
            train_rows=(np.arange(count["audio"]), np.arange(count["image"])),
            origin=self.origin(seed),
        )

    def origin(self, seed: int) -> Origin:
        """What a projection of these rows was made from."""
        audio, image = (
            EncoderRef(name, self.train[m].version, self.train[m].matrix.shape[1])
            for m, name in zip(MODALITIES, (self.audio, self.image), strict=True)
        )
        return Origin(audio, image, self.pairing, seed)

    @cached_property
    def rows_fingerprint(self) -> str:
        """Fingerprint of all rows and how they are paired."""
        splits = (*self.train.values(), *self.valid.values())
        rows = [(each.version, each.clips["clip_id"].to_list(), each.matrix) for each in splits]
        return fingerprint(self.pairing, self.pairs_seed, rows)

    def fingerprint(self, settings: TranslateParams) -> str:
        """Fingerprint of everything that a training of a given seed depends on."""
        relevant = settings.model_dump(exclude={"seeds", "device"})
        return fingerprint(self.rows_fingerprint, sorted(relevant.items()))

    def _kept(self, rows: PairRows, clip_ids: Set[str]) -> dict[Modality, np.ndarray]:
        """Rows that stay when some clips go, bool (rows,), by modality."""
        kept = {m: ~rows[m].clips["clip_id"].isin(clip_ids).to_numpy() for m in MODALITIES}
        if self.pairing == "clip":
            return kept
        classes = {m: rows[m].clips["instrument"] for m in MODALITIES}
        both = set(classes["audio"][kept["audio"]]) & set(classes["image"][kept["image"]])
        return {m: kept[m] & classes[m].isin(both).to_numpy() for m in MODALITIES}

    @cached_property
    def _stacked(self) -> dict[Modality, np.ndarray]:
        return {m: np.concatenate([self.train[m].matrix, self.valid[m].matrix]) for m in MODALITIES}


def _classes(rows: PairRows) -> list[np.ndarray]:
    return [rows[modality].clips["instrument"].to_numpy() for modality in MODALITIES]
