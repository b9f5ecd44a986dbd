"""What a pair's translations are trained and validated on, and one training of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from anymodal.champion import Evidence
from anymodal.dataset.pairing import Pairs, PairSampler, fixed_pairs
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.errors import AnymodalError
from anymodal.params import Params, RetrieveParams, TranslateParams
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.base import Projection
from anymodal.projection.training import TrainingResult, train_translation
from anymodal.projection.translation import Translation
from anymodal.retrieval import RetrievalScores, cross_modal_retrieval
from anymodal.stages.base import Context, Rows, dataset_facts, drawn_clips, encoder_pair, part
from anymodal.workspace import pair_name


@dataclass(frozen=True)
class TranslationData:
    """Training and validation rows of the translation subset, embedded by a pair of encoders."""

    audio: str
    image: str
    pairing: str
    train: dict[Modality, Rows]
    valid: dict[Modality, Rows]
    held_out: Pairs
    """The pairs of the validation loss."""
    pairs_seed: int
    """What `held_out` was drawn with."""

    @classmethod
    def load(cls, context: Context, audio: str, image: str) -> TranslationData:
        """Read the rows of one pair of encoders."""
        workspace, params = context.workspace, context.params
        clips = part(drawn_clips(workspace), "translation")
        train = encoder_pair(workspace, part(clips, "translation", "train"), audio, image)
        valid = encoder_pair(workspace, part(clips, "translation", "valid"), audio, image)
        pairing = dataset_facts(workspace)["pairing"]
        held_out = fixed_pairs(*_classes(valid), pairing, params.seed)
        return cls(audio, image, pairing, train, valid, held_out, params.seed)

    def without(self, clip_ids: Set[str]) -> TranslationData:
        """The same without some clips and, with class pairing, without the classes that are then
        left with one modality alone. `AnymodalError` where `lacks` tells why."""
        if told := self.lacks(clip_ids):
            raise AnymodalError(told)
        train, valid = (
            {m: _taken(rows[m], kept[m]) for m in MODALITIES}
            for rows, kept in ((rows, self._kept(rows, clip_ids)) for rows in self._splits)
        )
        held_out = fixed_pairs(*_classes(valid), self.pairing, self.pairs_seed)
        return replace(self, train=train, valid=valid, held_out=held_out)

    def lacks(self, clip_ids: Set[str]) -> str:
        """Why the data without these clips cannot train a translation; "" where they can."""
        for rows, name in zip(self._splits, ("training", "validation"), strict=True):
            kept = self._kept(rows, clip_ids)
            if self.pairing == "clip":
                kinds = int(kept["audio"].sum())
            else:
                kinds = rows["audio"].clips.loc[kept["audio"], "instrument"].nunique()
            if kinds < 2:
                what = "pairs" if self.pairing == "clip" else "classes"
                return f"fewer than two {what} would be left in the translation's {name} rows"
        return ""

    @property
    def _splits(self) -> tuple[dict[Modality, Rows], dict[Modality, Rows]]:
        return self.train, self.valid

    def _kept(
        self, rows: Mapping[Modality, Rows], clip_ids: Set[str]
    ) -> dict[Modality, np.ndarray]:
        """Rows that stay when some clips go, bool (rows,) a modality."""
        kept = {m: ~rows[m].clips["clip_id"].isin(clip_ids).to_numpy() for m in MODALITIES}
        if self.pairing == "clip":
            return kept
        classes = {m: rows[m].clips["instrument"] for m in MODALITIES}
        both = set(classes["audio"][kept["audio"]]) & set(classes["image"][kept["image"]])
        return {m: kept[m] & classes[m].isin(both).to_numpy() for m in MODALITIES}

    @property
    def pair(self) -> str:
        """The pair's name."""
        return pair_name(self.audio, self.image)

    @cached_property
    def sampler(self) -> PairSampler:
        """Draws an epoch's pairs of the training rows."""
        return PairSampler(*_classes(self.train), self.pairing)

    def fit(
        self,
        settings: TranslateParams,
        seed: int,
        checkpoint: Path | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        measure: Callable[[Translation], Mapping[str, float]] | None = None,
    ) -> TrainingResult:
        """Train one translation; see `anymodal.projection.training.train_translation`."""
        # validation rows stand behind the training rows in one matrix a modality
        count = {m: len(self.train[m].matrix) for m in MODALITIES}
        held_out = self.held_out._replace(
            audio=self.held_out.audio + count["audio"], image=self.held_out.image + count["image"]
        )
        return train_translation(
            self._stacked["audio"],
            self._stacked["image"],
            self.sampler.epoch,
            held_out,
            settings,
            seed,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            measure=measure,
            train_rows=(np.arange(count["audio"]), np.arange(count["image"])),
            origin=self.origin(seed),
        )

    @cached_property
    def _stacked(self) -> dict[Modality, np.ndarray]:
        return {m: np.concatenate([self.train[m].matrix, self.valid[m].matrix]) for m in MODALITIES}

    def origin(self, seed: int) -> Origin:
        """What a projection of these rows says that it was made from."""
        sounds, pictures = self.train["audio"], self.train["image"]
        return Origin(
            EncoderRef(self.audio, sounds.version, sounds.matrix.shape[1]),
            EncoderRef(self.image, pictures.version, pictures.matrix.shape[1]),
            self.pairing,
            seed,
        )

    def validate(
        self,
        projection: Projection,
        params: RetrieveParams,
        rows: Mapping[Modality, np.ndarray] | None = None,
    ) -> RetrievalScores:
        """NDCG among the validation rows, or `rows` of them: a score that, unlike the loss, can
        be compared between losses and margins, and that needs no label but the clips' own."""
        chosen = rows or {m: np.arange(len(self.valid[m].matrix)) for m in MODALITIES}
        labels = {m: self.valid[m].clips["labels"].iloc[chosen[m]].to_list() for m in MODALITIES}
        return cross_modal_retrieval(
            projection.project("audio", self.valid["audio"].matrix[chosen["audio"]]),
            projection.project("image", self.valid["image"].matrix[chosen["image"]]),
            labels["audio"],
            labels["image"],
            k=params.top_k,
            chunk=params.chunk,
        )

    def evidence(self, projection: Projection, dataset: str, params: Params) -> Evidence:
        """How `projection` retrieves among the validation rows, query by query."""
        scores = self.validate(projection, params.retrieve)
        queries = {"audio": scores.audio_queries, "image": scores.image_queries}
        rows = [
            self.valid[m].clips[["clip_id", "group"]].assign(modality=m, score=queries[m])
            for m in MODALITIES
        ]
        # embeddings of other encoders go into another space: theirs is no rival
        context = {"dataset": dataset, "pairing": self.pairing, "pair": self.pair}
        measure = f"NDCG@{params.retrieve.top_k}"
        return Evidence(measure, context, pd.concat(rows, ignore_index=True))

    def fingerprint(self, settings: TranslateParams | None = None) -> str:
        """Hash of all that a training of a given seed depends on; without settings, of the rows."""
        told = ""
        if settings is not None:
            told = settings.model_dump_json(exclude={"seeds"} | settings.at_default())
        total = hashlib.sha256(f"{told} {self.pairing} {self.pairs_seed}".encode())
        for rows in (*self.train.values(), *self.valid.values()):
            total.update(rows.version.encode())
            total.update("\n".join(rows.clips["clip_id"]).encode())
            total.update(np.ascontiguousarray(rows.matrix).data)
        return total.hexdigest()


def _taken(rows: Rows, kept: np.ndarray) -> Rows:
    return Rows(rows.clips[kept].reset_index(drop=True), rows.matrix[kept], rows.version)


def _classes(rows: Mapping[Modality, Rows]) -> tuple[np.ndarray, np.ndarray]:
    return (
        rows["audio"].clips["instrument"].to_numpy(),
        rows["image"].clips["instrument"].to_numpy(),
    )
