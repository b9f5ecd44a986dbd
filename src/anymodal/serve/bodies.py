"""Requests into files: counted while they come in, and never opened by name."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from anymodal.serve.limits import ServeLimits
from anymodal.serve.problems import Problem, busy

_LABEL = 200
"""Characters of a name that are repeated to the client."""
_BOUNDARY = re.compile(r'boundary="?([^";,]+)"?', re.IGNORECASE)


@dataclass(frozen=True)
class Upload:
    """A file of a request."""

    label: str
    """What the client calls it; a label, never a path."""
    content: bytes


class FileOfJson(BaseModel):
    """A file in a JSON request."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", max_length=4096, description="what the answer calls it")
    content: str = Field(description="the file's bytes in base64")


class FilesOfJson(BaseModel):
    """A JSON request."""

    model_config = ConfigDict(extra="forbid")

    items: list[FileOfJson]


class HeldBytes:
    """Bytes of all bodies that are held at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one request holds, until the block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.size

    def take(self, size: int) -> None:
        """Hold `size` more; 503 where that is too much."""
        if self.held + size > self._limit:
            raise busy("too much is being sent at a time; try again")
        self.held += size


class Share:
    """What one request holds."""

    def __init__(self, whole: HeldBytes) -> None:
        self._whole = whole
        self.size = 0

    def add(self, size: int) -> None:
        """Hold `size` more."""
        self._whole.take(size)
        self.size += size


class Body:
    """A request's body, counted while it comes in."""

    def __init__(self, request: Request, limits: ServeLimits, share: Share) -> None:
        self._limits = limits
        self._share = share
        self._receive = request.receive
        self._tail = b""
        self.request = Request(request.scope, self._counted)
        self.complete = False
        """Whether it came in to its end."""

    async def uploads(self) -> list[Upload]:
        """The files of the request; a `Problem` for what holds none."""
        headers = self.request.headers
        if headers.get("content-encoding", "identity") != "identity":
            raise Problem(415, "bodies must come as they are, without Content-Encoding")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("multipart/form-data", "application/json"):
            raise Problem(
                415, "send files as multipart/form-data (curl -F files=@photo.jpg), or as JSON"
            )
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limits.request_bytes:
            self._too_large()
        try:
            async with asyncio.timeout(self._limits.receive_s):
                if kind == "application/json":
                    body = await self.request.body()
                    found = await asyncio.to_thread(_of_json, body, self._limits)
                else:
                    found = await self._of_form()
        except TimeoutError:
            raise Problem(
                408, f"the body did not come in within {self._limits.receive_s:g} s"
            ) from None
        except ClientDisconnect:
            raise Problem(400, "the client left before its body was in") from None
        if not found:
            raise Problem(400, "the request holds no file")
        return found

    async def _counted(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            body = message.get("body", b"")
            if self._share.size + len(body) > self._limits.request_bytes:
                self._too_large()
            self._share.add(len(body))
            self._tail = (self._tail + body)[-1024:]
            self.complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> NoReturn:
        raise Problem(413, f"the request holds more than {self._limits.request_bytes:,} bytes")

    async def _of_form(self) -> list[Upload]:
        try:
            form = await self.request.form(max_files=self._limits.files, max_fields=16)
        except HTTPException as error:
            raise Problem(400, str(error.detail)) from error
        try:
            boundary = _BOUNDARY.search(self.request.headers["content-type"])
            # the parser takes a part that never ends for none
            if boundary is None or f"--{boundary[1]}--".encode() not in self._tail:
                raise Problem(400, "the multipart body ends before its last boundary")
            found = []
            for field, part in form.multi_items():
                if not isinstance(part, UploadFile):
                    raise Problem(
                        400,
                        f"the field {_label(field)!r} is no file (curl -F files=@photo.jpg, with "
                        "the @)",
                    )
                # one byte more than allowed is enough to see that it is too many
                content = await part.read(self._limits.file_bytes + 1)
                found.append(Upload(_label(part.filename), content))
            return found
        finally:
            await form.close()


def _of_json(body: bytes, limits: ServeLimits) -> list[Upload]:
    try:
        files = FilesOfJson.model_validate_json(body).items
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        status = 400 if first["type"] == "json_invalid" else 422
        raise Problem(status, f"{place}: {first['msg']}".removeprefix(": ")) from None
    if len(files) > limits.files:
        raise Problem(400, f"Too many files. Maximum number of files is {limits.files}.")
    found = []
    for number, file in enumerate(files):
        try:
            content = base64.b64decode(file.content, validate=True)
        except (binascii.Error, ValueError):
            raise Problem(422, f"items.{number}.content: is not base64") from None
        found.append(Upload(_label(file.name), content))
    return found


def _label(name: str | None) -> str:
    """A client's name for something, fit to be shown."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in (name or "")[:_LABEL])
    return shown or "item"
