"""Being in a Ray session: joined where there is one, started on this machine otherwise."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anymodal.core.errors import AnymodalError

ADDRESS_VARIABLE = "RAY_ADDRESS"
"""Names the cluster to join, as for all programs that use Ray."""


@dataclass(frozen=True)
class Session:
    """This process's part in Ray."""

    local: bool
    """Whether Ray was started for this process alone."""
    ours: bool
    """Whether to leave Ray at the end."""

    def leave(self) -> None:
        """End what `enter` began."""
        if self.ours:
            import ray

            ray.shutdown()

    def resources(self, on_gpu: bool, threads: int, networks: int | None) -> tuple[int, float, int]:
        """How many processes can hold a network, at most `networks`, and the processors and GPUs
        that each takes to compute with `threads` threads."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if on_gpu:
            gpus = int(sum(node.get("GPU", 0) for node in nodes))
            if not gpus:
                raise AnymodalError(
                    "the encoder is on a GPU, and Ray has none: build it with device='cpu'"
                )
            return min(networks or gpus, gpus), 0, 1
        processors = [int(node.get("CPU", 0)) for node in nodes]
        # one processor at least is left to decode, or nothing would ever reach a network
        each = max(0, min(threads, max(processors, default=0) - 1))
        most = 1 if self.local else max(1, (sum(processors) - 1) // max(1, each))
        # a network that asks for what decoding does, Ray Data would put into one process with it
        return min(networks or most, most), 0.99 if each == 1 else each, 0


def enter(workers: int, threads: int) -> Session:
    """Join this process's session or the cluster of `RAY_ADDRESS`, or start Ray here with
    processors for `workers` that decode and a network of `threads`.

    Raises `AnymodalError` when Ray is missing, cannot be reached or does not start.
    """
    with _quiet_environment():
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise AnymodalError(
                'the engine "ray" needs Ray: pip install "anymodal[ray]", or set embed.engine to '
                f"local ({error})"
            ) from error
        _quiet_console()
        if ray.is_initialized():
            return Session(local=False, ours=False)
        address = os.environ.get(ADDRESS_VARIABLE)
        settings: dict[str, Any] = {"address": address}
        if address and ":" in address:
            _reach(address)
        elif not address or address == "local":
            # "local", for without an address Ray would join any session it finds on the machine
            settings = {"address": "local", "num_cpus": workers + threads}
            settings |= {"include_dashboard": False}
        try:
            with _silence():
                ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
        # Ray raises whatever its parts raise
        except Exception as error:
            what = f"no Ray cluster at {address} ({ADDRESS_VARIABLE})" if address else "no Ray"
            reason = " ".join(str(error).split())
            if address:
                reason += "; something answers there: is it Ray of this version, with this token?"
            raise AnymodalError(f"{what}: {type(error).__name__}: {reason}") from error
    return Session(local="num_cpus" in settings, ours=True)


def _reach(address: str) -> None:
    """Refuse an address that nothing answers at: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise AnymodalError(f"no Ray cluster at {address} ({ADDRESS_VARIABLE}): {error}") from error


@contextlib.contextmanager
def _quiet_environment() -> Iterator[None]:
    """Ray reads these when it is imported or started, and passes them on to what it starts."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    added = [name for name in quiet if name not in os.environ]
    os.environ.update({name: quiet[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep off the console what Ray's native code prints while it starts."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _quiet_console() -> None:
    """Ray Data's report of every run stays in its log files."""
    for handler in logging.getLogger("ray.data").handlers:
        # Ray's own alone: handlers of the program that imports this are on other loggers too
        if type(handler).__name__ == "PlainRayHandler":
            handler.setLevel(logging.CRITICAL)
