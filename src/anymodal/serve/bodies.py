"""Requests into files: counted while they are received, and never opened by name."""

from __future__ import annotations

import asyncio
from email.message import Message
from typing import NamedTuple

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message as AsgiMessage

from anymodal.serve.budget import MemoryBudget
from anymodal.serve.limits import ServeLimits

_LABEL = 200
"""Characters of a name that are repeated to the client."""


class Upload(NamedTuple):
    """A file of a request; its label is never a path."""

    label: str
    content: bytes


class FileOfJson(BaseModel):
    """A file in a JSON request."""

    model_config = ConfigDict(extra="forbid", val_json_bytes="base64")

    name: str = Field("", max_length=4096, description="its name in the answer")
    content: bytes = Field(
        description="the file's bytes in base64", json_schema_extra={"format": "byte"}
    )


class FilesOfJson(BaseModel):
    """A JSON request."""

    model_config = ConfigDict(extra="forbid")

    items: list[FileOfJson]


class Body:
    """A request's body, counted while it is received."""

    def __init__(self, request: Request, limits: ServeLimits, budget: MemoryBudget) -> None:
        self._limits = limits
        self._budget = budget
        self._receive = request.receive
        self._request = Request(request.scope, self._counted)
        self._end = b""
        self.size = 0
        """Bytes received so far, which the caller releases from the budget."""
        self.complete = False

    async def uploads(self) -> list[Upload]:
        """Return the files of the request; `HTTPException` where there are none."""
        headers, limits = self._request.headers, self._limits
        if headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "send the body as it is, without Content-Encoding")
        declared = headers.get("content-length", "")
        if declared.isdecimal():
            self._check_size(int(declared))
        kind = Message()
        kind["content-type"] = headers.get("content-type", "")
        try:
            async with asyncio.timeout(limits.receive_s):
                match kind.get_content_type():
                    case "multipart/form-data":
                        uploads = await self._of_form(kind.get_boundary() or "")
                    case "application/json":
                        body = await self._request.body()
                        uploads = await asyncio.to_thread(_of_json, body, limits)
                    case _:
                        raise HTTPException(
                            415,
                            "send files as multipart/form-data (curl -F files=@photo.jpg) or JSON",
                        )
        except TimeoutError:
            raise HTTPException(
                408, f"the body was not received within {limits.receive_s:g} s"
            ) from None
        except ClientDisconnect:
            raise HTTPException(400, "the client disconnected before the body's end") from None
        if not uploads:
            raise HTTPException(400, "the request holds no file")
        return uploads

    async def _counted(self) -> AsgiMessage:
        message = await self._receive()
        if message["type"] == "http.request":
            part = message.get("body", b"")
            self._check_size(self.size + len(part))
            self._budget.add_body(len(part))
            self.size += len(part)
            self._end = (self._end + part)[-1024:]
            self.complete = not message.get("more_body", False)
        return message

    def _check_size(self, size: int) -> None:
        if size > self._limits.request_bytes:
            raise HTTPException(413, f"the request exceeds {self._limits.request_bytes:,} bytes")

    async def _of_form(self, boundary: str) -> list[Upload]:
        limits, uploads = self._limits, []
        async with self._request.form(max_files=limits.files, max_fields=16) as form:
            # the parser silently omits a part without an end
            if f"--{boundary}--".encode("latin-1", "replace") not in self._end:
                raise HTTPException(400, "the multipart body ends before its last boundary")
            for field, part in form.multi_items():
                if not isinstance(part, UploadFile):
                    raise HTTPException(
                        400, f"the field {_label(field)!r} is no file (curl -F files=@photo.jpg)"
                    )
                # one byte above the limit shows that the file is too large
                content = await part.read(limits.file_bytes + 1)
                uploads.append(Upload(_label(part.filename), content))
        return uploads


def _of_json(body: bytes, limits: ServeLimits) -> list[Upload]:
    try:
        files = FilesOfJson.model_validate_json(body).items
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        status = 400 if first["type"] == "json_invalid" else 422
        raise HTTPException(status, f"{place}: {first['msg']}".removeprefix(": ")) from None
    if len(files) > limits.files:
        raise HTTPException(400, f"Too many files. Maximum number of files is {limits.files}.")
    return [Upload(_label(file.name), file.content) for file in files]


def _label(name: str | None) -> str:
    """A client's name of something, fit to be shown."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in (name or "")[:_LABEL])
    return shown or "item"
