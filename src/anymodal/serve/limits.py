"""What a request, a file and a decoder may use."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anymodal.core.errors import AnymodalError

MIB = 1 << 20


class ServeLimits(BaseModel):
    """Limits of a server, whatever a request claims. Without the model, memory stays below about
    `held_bytes` + `decoders` × `decoder_bytes` + (`decoders` + 1) × `decoded_bytes`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file_bytes: int = Field(32 * MIB, ge=1, description="bytes of a file")
    files: int = Field(16, ge=1, description="files per request")
    request_bytes: int = Field(64 * MIB, ge=1, description="bytes of a request's body")
    requests: int = Field(32, ge=1, description="requests in progress; further ones get 503")
    held_bytes: int = Field(
        512 * MIB, ge=1, description="bytes of all bodies and decoded items in memory"
    )
    receive_s: float = Field(30.0, gt=0, description="seconds to receive a body")
    answer_s: float = Field(60.0, gt=0, description="seconds from the body to the answer")
    stop_s: float = Field(30.0, ge=0, description="seconds to finish requests when stopping")

    decoders: int = Field(2, ge=1, le=256, description="decoder processes")
    decode_s: float = Field(10.0, gt=0, description="seconds to decode a file, wall and CPU time")
    decoder_bytes: int = Field(
        1024 * MIB, ge=512 * MIB, description="address space of a decoder process"
    )
    decoded_bytes: int = Field(256 * MIB, ge=1, description="bytes of a file once decoded")
    media_s: float = Field(3600.0, gt=0, description="length of an audio file or a video")
    windows: int = Field(60, ge=1, description="windows used of an audio file or a video")

    batch_windows: int = Field(64, ge=1, description="windows per batch of the networks")
    neighbours: int = Field(100, ge=1, description="items a search may ask for")

    @model_validator(mode="after")
    def _consistent(self) -> ServeLimits:
        if self.request_bytes > self.held_bytes:
            raise ValueError("held_bytes must not be less than request_bytes")
        return self

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise AnymodalError(f"limits of the server: {name} {first['msg']}".strip()) from error

    def rows(self) -> list[tuple[str, str, str]]:
        """(name, value, meaning) of each, for people."""
        return [
            (name, _formatted(name, getattr(self, name)), str(field.description))
            for name, field in type(self).model_fields.items()
        ]


def _formatted(name: str, value: float) -> str:
    if name.endswith("_bytes") and value >= MIB:
        return f"{value / MIB:g} MiB"
    return f"{value:g} s" if name.endswith("_s") else f"{value:,}"
