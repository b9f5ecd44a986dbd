"""The shapes of the answers, for OpenAPI."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class EncoderAnswer(BaseModel):
    name: str
    version: str = Field(description="hash of weights and preprocessing")


class ModelAnswer(BaseModel):
    """The classifier that answers."""

    name: str
    anymodal: str = Field(description="version of the package")
    classes: list[str]
    encoders: dict[str, EncoderAnswer] = Field(description="by modality")


class ItemAnswer(BaseModel):
    """One file: `prediction` or `neighbours`, or `error`."""

    item: str = Field(description="the name that the client gave, or `item`")
    status: int = Field(description="200, or the status that the file alone would get")
    error: str | None = Field(None, description="why there is no answer, in one line")
    prediction: dict[str, Any] | None = Field(
        None, description="best class or `unknown`, probabilities, novelty, and each window's"
    )
    neighbours: list[dict[str, Any]] | None = Field(
        None, description="the most similar items of the index, best first"
    )


class Answers(BaseModel):
    """One entry per file, in the order in which they were sent."""

    model: ModelAnswer
    items: list[ItemAnswer]


class ProblemAnswer(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="one line: what is wrong, and what to do")
    items: list[ItemAnswer] | None = Field(
        None, description="one entry per file, where none got an answer"
    )


class Health(BaseModel):
    """Whether the server can answer."""

    status: str
    decoders: int = Field(description="decoder processes that run")
    inference: bool
    requests: int = Field(description="in progress")
