"""The function image-greyscale-lambda: a picture as hex in, its greyscale PNG as hex out.

Request and answer have the JSON of API Gateway's proxy integration: ``body``, and ``statusCode``,
``headers`` and ``body``. What is wrong with a request is an answer with status 400 or 413, never a
failure of the function. No part of a payload is logged.
"""

from __future__ import annotations

import binascii
import json
import logging
import os
import re
from pathlib import Path
from typing import Final

from picture import DecoderStopped, PictureError, PictureModule

#: What a function may answer, as JSON. Source: AWS Lambda quotas, plus 100 bytes as in AWS.
MAX_ANSWER_BYTES: Final = 6_291_556

_JSON_TYPES: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}

logger = logging.getLogger(__name__)

#: Compiled while the runtime starts, as Lambda means it: that is not charged to a call.
_pictures = PictureModule(
    Path(os.environ.get("GREYSCALE_WASM") or Path(__file__).with_name("greyscale.wasm"))
)


class RequestError(ValueError):
    """The event is no request for this function; the text says what was found and expected."""


def handler(event: object, context: object) -> dict[str, object]:
    """Answer the greyscale PNG of the picture in the event's ``body``."""
    try:
        png = _pictures.greyscale(read_picture(event))
    except RequestError as error:
        return _refusal(400, str(error))
    except PictureError as error:
        if isinstance(error, DecoderStopped):
            logger.warning("a picture cannot be read: %s", error)
        return _refusal(400, f"the picture cannot be read: {error}")
    answer: dict[str, object] = {
        "statusCode": 200,
        "headers": {"Content-Type": "image/png"},
        "isBase64Encoded": False,
        "body": png.hex(),
    }
    answer_bytes = len(json.dumps(answer))
    if answer_bytes > MAX_ANSWER_BYTES:
        return _refusal(
            413,
            f"the greyscale PNG has {len(png):,} bytes, which makes an answer of {answer_bytes:,}; "
            f"Lambda takes {MAX_ANSWER_BYTES:,}: send a smaller picture",
        )
    return answer


def read_picture(event: object) -> bytes:
    """Return the bytes that the event's ``body`` has as hex."""
    if not isinstance(event, dict):
        raise RequestError(
            f'the event must be an object like {{"body": "<hex>"}}, found {_type(event)}'
        )
    if "body" not in event:
        raise RequestError("the event has no body: expected a picture, JPEG or PNG, as hex")
    body: object = event["body"]
    if not isinstance(body, str):
        raise RequestError(f"the body must be a string of hex digits, found {_type(body)}")
    if not body:
        raise RequestError("the body is empty: expected a picture, JPEG or PNG, as hex")
    try:
        return binascii.unhexlify(body)
    except ValueError:
        raise RequestError(_why_no_hex(body)) from None


def _why_no_hex(body: str) -> str:
    wrong = re.search("[^0-9a-fA-F]", body)
    if wrong is None:
        return f"the body must have two hex digits for each byte, found an odd {len(body):,} digits"
    where = f"character {wrong.start() + 1:,} of {len(body):,}"
    return f"the body must be hex digits and nothing else, but {where} is something else"


def _type(value: object) -> str:
    return _JSON_TYPES.get(type(value), type(value).__name__)


def _refusal(status: int, message: str) -> dict[str, object]:
    return {
        "statusCode": status,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps({"message": message}),
    }
