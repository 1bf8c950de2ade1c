"""Uploaded pictures: how much of them is held at once, and what is made of one.

An upload is the body of one request, and lives in memory until it is answered: no file of it is
ever written, so that nothing stays behind however the server ends.
"""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.data.images import MAX_PIXELS, RESAMPLING, open_image
from melanoma_lib.inference.predictor import MAX_FILE_BYTES

MAX_REQUESTS = 100  # that are being received or wait; any beyond are told to come again
MAX_HELD_BYTES = 256_000_000  # of the pictures of all these
MAX_AT_WORK = 2  # pictures decoded at a time, of up to half a gigabyte each
RECEIVE_SECONDS = 60  # for the whole body of a request
RETRY_SECONDS = 2  # after which a request that found no place may come again
VIEW_PIXELS = 1024  # longer side of a picture as it is shown

BUSY = "The page is busy: many pictures are waiting. Try again in a moment."
UNREADABLE = (
    "This file cannot be read as a picture: {reason}. Save it as JPEG or PNG, with up to "
    f"{MAX_FILE_BYTES / 1e6:.0f} MB and {MAX_PIXELS / 1e6:.0f} million pixels, and give it again."
)
TOO_LARGE = (
    f"This file has more than the {MAX_FILE_BYTES / 1e6:.0f} MB that a picture may have. Save it "
    "smaller, for example as JPEG, and give it again."
)


@dataclass(frozen=True)
class Picture:
    """One picture twice: `view`, to be shown, and `image`, uint8 (side, side, 3), for a model.

    The view has the proportions of the file, and a longer side of at most `VIEW_PIXELS`.
    """

    view: Image.Image
    image: np.ndarray


def read_picture(data: bytes, size: int) -> Picture:
    """Decodes a picture file; raises `MelanomaError` with what to do if it cannot be.

    The image equals that of `Predictor.load_image`.
    """
    try:
        full = open_image(io.BytesIO(data))
    except ValueError as error:
        raise MelanomaError(UNREADABLE.format(reason=error)) from None
    image = np.asarray(full.resize((size, size), RESAMPLING))
    full.thumbnail((VIEW_PIXELS, VIEW_PIXELS), RESAMPLING)
    return Picture(full, image)


class UploadLimiter:
    """Takes the uploads of all visitors, and keeps what they hold together within limits."""

    def __init__(self) -> None:
        self.requests, self.held_bytes = 0, 0
        self._at_work = asyncio.Semaphore(MAX_AT_WORK)

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, in a block in which it may be decoded.

        Raises HTTPException: 411 without a length, 413 for too large a file, 408 for one that does
        not arrive, 503 where there is no place for it. What is still sent of it, uvicorn drops.
        """
        size = request.headers.get("content-length", "")
        if not size.isdecimal():
            raise HTTPException(411, "A picture must be sent with its length.")
        if int(size) > MAX_FILE_BYTES:
            raise HTTPException(413, TOO_LARGE)
        if self.requests >= MAX_REQUESTS or self.held_bytes + int(size) > MAX_HELD_BYTES:
            raise HTTPException(503, BUSY, {"Retry-After": str(RETRY_SECONDS)})
        self.requests += 1
        self.held_bytes += int(size)
        try:
            data = await _read_body(request, int(size))
            async with self._at_work:
                yield data
        finally:
            self.requests -= 1
            self.held_bytes -= int(size)


async def _read_body(request: Request, size: int) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > size:  # sent in chunks, whatever its length was said to be
                    raise HTTPException(413, TOO_LARGE)
    except TimeoutError:
        raise HTTPException(408, "The picture did not arrive in time. Give it again.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The picture broke off. Give it again.") from None
    return bytes(data)
