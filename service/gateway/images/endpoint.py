"""The endpoints of stored images: `PUT /v1/images`, and `POST /v1/images/missing`.

The module depends on the checks of a body and on the store, on no model and no worker: images can
be put before a worker is ready. They are checked by their headers, as an image of a request is
before it is admitted; one that cannot be decoded is found out where it is scored, as if it had been
sent there. Invariant: a bad image is refused at its place, and the others of its body are stored.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio.to_thread
from fastapi import Request, Response
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.responses import JSONResponse

from service.errors import (
    BodyTooLarge,
    ImageTooLarge,
    InvalidImage,
    InvalidRequest,
    NotFound,
    Problem,
    RerankError,
    UnsupportedMediaType,
)
from service.gateway.admission.authentication import Caller, caller_of
from service.gateway.admission.quotas import Quotas
from service.gateway.dialects.fields.messages import bad_request
from service.gateway.images.multipart import MultipartBody
from service.gateway.images.store import ImageStore
from service.gateway.media.encoded_image import EncodedImage, check_size, checked_image
from service.gateway.media.references import digest_of, reference_of
from service.image_api import (
    MissingImagesAnswer,
    MissingImagesRequest,
    PutImagesAnswer,
    RefusedImage,
    StoredImage,
)
from service.limits import Limits
from service.observability.image_metrics import IMAGES_PUT
from service.observability.request_context import add_log_fields, stage
from service.web.asgi import until_answered
from service.web.body_budget import BodyBudget, Reservation
from service.web.request_body import announced_bytes, body_chunks, read_body

IMAGES_PATH = "/v1/images"
MISSING_PATH = "/v1/images/missing"
MULTIPART = "multipart/form-data"
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
MAX_MISSING_BYTES = 2**20
_BINARY = "application/octet-stream"


class ImagesEndpoint:
    """Stores images of callers; without a `store`, no image is stored.

    A request counts as one in flight of the caller's quota, and waits while the quota is in debt;
    it is charged no pairs, because none is scored. With `cache_shared`, tenants share images.
    """

    def __init__(
        self,
        limits: Limits,
        store: ImageStore | None,
        quotas: Quotas,
        body_budget: BodyBudget,
        *,
        cache_shared: bool = False,
    ) -> None:
        self._limits = limits
        self._store = store
        self._quotas = quotas
        self._body_budget = body_budget
        self._cache_shared = cache_shared

    async def put(self, request: Request) -> Response:
        """Store one image, which is the body, or those of a multipart body."""
        caller, store = self._expect_store(request)
        many = _is_multipart(request)
        announced = announced_bytes(request, self._limits.max_body_bytes)
        with self._quotas.ticket(caller.scope, caller.quota):
            held = until_answered(request).enter_context(
                self._body_budget.reserve(announced, caller.scope)
            )
            with stage("parse"):
                bodies = await (self._parts(request, held) if many else self._one(request, held))
                most = min(self._limits.max_image_bytes, store.max_image_bytes)
                checked = await anyio.to_thread.run_sync(self._checked, bodies, most)
            if not many and isinstance(checked[0], RerankError):
                raise checked[0]
            good = [image for image in checked if isinstance(image, EncodedImage)]
            expires_at = await store.put(good, self._scope(caller))

        images = [_entry(image, expires_at) for image in checked]
        return _answer(PutImagesAnswer(images=images))

    async def missing(self, request: Request) -> Response:
        """Answer the digests, of those in the body, that the caller's scope has no image of."""
        caller, store = self._expect_store(request)
        with self._quotas.ticket(caller.scope, caller.quota):
            held = until_answered(request).enter_context(
                self._body_budget.reserve(announced_bytes(request, MAX_MISSING_BYTES), caller.scope)
            )
            body = await read_body(request, MAX_MISSING_BYTES, held)
            digests = await anyio.to_thread.run_sync(_digests, body)
            missing = await store.missing(set(digests), self._scope(caller))

        listed = [reference_of(digest) for digest in dict.fromkeys(digests) if digest in missing]
        return _answer(MissingImagesAnswer(missing=listed))

    def _expect_store(self, request: Request) -> tuple[Caller, ImageStore]:
        caller = caller_of(request)
        add_log_fields(tenant=caller.name())
        if self._store is None:
            raise NotFound("Images are not stored here: send them in requests.")
        return caller, self._store

    def _scope(self, caller: Caller) -> str:
        return "" if self._cache_shared else caller.scope

    async def _one(self, request: Request, held: Reservation) -> Sequence[bytes | None]:
        """The whole body; None where it is larger than an image may be."""
        body = bytearray()
        async for chunk in self._chunks(request, held):
            body += chunk
            if len(body) > self._limits.max_image_bytes:
                return [None]
        return [bytes(body)]

    async def _parts(self, request: Request, held: Reservation) -> Sequence[bytes | None]:
        """The parts of the body; None in the place of one that is larger than an image may be."""
        parts = MultipartBody(
            request.headers["content-type"],
            max_parts=self._limits.max_put_images,
            max_part_bytes=self._limits.max_image_bytes,
        )
        async for chunk in self._chunks(request, held):
            parts.write(chunk)
        return parts.close()

    async def _chunks(self, request: Request, held: Reservation) -> AsyncIterator[bytes]:
        """The chunks of the body within the limit of a body, reserved as they arrive."""
        size = 0
        async for chunk in body_chunks(request):
            held(len(chunk))
            size += len(chunk)
            if size > self._limits.max_body_bytes:
                raise BodyTooLarge
            yield chunk

    def _checked(
        self, bodies: Sequence[bytes | None], most: int
    ) -> list[EncodedImage | InvalidImage | ImageTooLarge]:
        """The image in each body, or its error."""
        limits = self._limits.model_copy(update={"max_image_bytes": most})
        checked: list[EncodedImage | InvalidImage | ImageTooLarge] = []
        for body in bodies:
            try:
                check_size(most + 1 if body is None else len(body), limits)
                checked.append(checked_image(body or b"", limits))
            except (InvalidImage, ImageTooLarge) as error:
                checked.append(error.with_traceback(None))
        return checked


def _is_multipart(request: Request) -> bool:
    """True for a body with many images, False for one image; raises `UnsupportedMediaType` for
    anything else."""
    content_type = request.headers.get("content-type", _BINARY)
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == MULTIPART:
        return True
    if media_type.startswith("image/") or media_type == _BINARY:
        return False
    raise UnsupportedMediaType(f"Send {', '.join(IMAGE_TYPES)}, or several as {MULTIPART}.")


def _digests(body: bytearray) -> list[bytes]:
    """The digests that a body lists; raises `InvalidRequest`."""
    try:
        listed = MissingImagesRequest.model_validate_json(body).digests
    except ValidationError as error:
        raise bad_request(error) from None

    digests: list[bytes] = []
    problems: list[Problem] = []
    for index, reference in enumerate(listed):
        try:
            digests.append(digest_of(reference))
        except InvalidImage as error:
            problems.append(Problem(("digests", index), error.message))
    if problems:
        raise InvalidRequest(problems=problems)
    return digests


def _entry(image: EncodedImage | RerankError, expires_at: int) -> StoredImage | RefusedImage:
    """An image's entry of the answer."""
    if isinstance(image, RerankError):
        IMAGES_PUT.labels(image.code).inc()
        return RefusedImage(code=image.code, message=image.message)

    IMAGES_PUT.labels("stored").inc()
    width, height = image.header.size
    return StoredImage(
        digest=reference_of(image.digest),
        bytes=len(image.data),
        width=width,
        height=height,
        expires_at=expires_at,
    )


def _answer(answer: PutImagesAnswer | MissingImagesAnswer) -> Response:
    return Response(to_json(answer), media_type=JSONResponse.media_type)
