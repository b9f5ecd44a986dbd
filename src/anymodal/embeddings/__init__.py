"""Embeddings from raw media: extraction, the engines that run it, and the cache it fills."""

from __future__ import annotations

from anymodal.cache import EmbeddingCache, Embeddings, ExtractionReport
from anymodal.embedding.choice import open_engine
from anymodal.embedding.engines import Engine, LocalEngine
from anymodal.embedding.extraction import extract

__all__ = [
    "EmbeddingCache",
    "Embeddings",
    "Engine",
    "ExtractionReport",
    "LocalEngine",
    "extract",
    "open_engine",
]
