"""Embeddings from raw media: extraction, the engines that run it, and the cache it fills."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anymodal.core.errors import AnymodalError
from anymodal.embeddings.cache import EmbeddingCache, Embeddings, ExtractionReport
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


@contextmanager
def open_engine(name: str, workers: int) -> Iterator[Engine]:
    """The engine `local` or `ray`, for as many extractions as the block holds.

    What it needs is started with the first and ended with the block.
    """
    if name == "local":
        yield LocalEngine(workers)
    elif name == "ray":
        from anymodal.embeddings.ray_engine import RayEngine

        with RayEngine(workers) as engine:
            yield engine
    else:
        raise AnymodalError(f"no engine {name!r}; known: local, ray")
