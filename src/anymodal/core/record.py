"""The base of every stage's result: a frozen model that is one JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from anymodal.core.errors import AnymodalError
from anymodal.core.storage import write_text

Pairing = Literal["clip", "class"]
"""Audio and image of the same second of a recording, or of one label."""


class Record(BaseModel):
    """A frozen result, or a part of one; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    def write(self, path: str | Path) -> None:
        """Write the record as JSON; NaN becomes null."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: str | Path, stage: str) -> Self:
        """Read what `write` wrote.

        Raises `AnymodalError`, which names the file and the stage that writes it, when the file
        is missing, damaged or of another version.
        """
        path = Path(path)
        if not path.is_file():
            raise AnymodalError(f"no {path}; run `anymodal {stage}` first")
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the file"
            reason = f"{field}: {first['msg']}"
        except ValueError as error:
            reason = f"not valid JSON ({error})"
        raise AnymodalError(f"{path}: {reason}; run `anymodal {stage}` again")


class Measured(Record):
    """A result with what it rests on."""

    dataset: str
    pairing: Pairing
    pair: str
    """`<audio encoder>+<image encoder>`."""
