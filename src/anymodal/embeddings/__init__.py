"""Embeddings from raw media: extraction, the engines that run it, and the cache it fills."""

from __future__ import annotations

from anymodal.embeddings.cache import EmbeddingCache, Embeddings, ExtractionReport
from anymodal.embeddings.choice import open_engine
from anymodal.embeddings.engines import Engine, LocalEngine
from anymodal.embeddings.extraction import extract

__all__ = [
    "EmbeddingCache",
    "Embeddings",
    "Engine",
    "ExtractionReport",
    "LocalEngine",
    "extract",
    "open_engine",
]
