"""The engine that params.yaml names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anymodal.core.errors import AnymodalError
from anymodal.embeddings.engines import Engine, LocalEngine
from anymodal.embeddings.ray_engine import RayEngine

ENGINES = ("local", "ray")


@contextmanager
def open_engine(name: str, workers: int) -> Iterator[Engine]:
    """The engine of that name with `workers` that decode, for as many extractions as the block
    holds; what it needs it starts with the first and ends with the block.

    Raises `AnymodalError` for a name that is not one of `ENGINES`.
    """
    if name == "local":
        yield LocalEngine(workers)
    elif name == "ray":
        with RayEngine(workers) as engine:
            yield engine
    else:
        raise AnymodalError(f"no engine {name!r}; known: {', '.join(ENGINES)}")
