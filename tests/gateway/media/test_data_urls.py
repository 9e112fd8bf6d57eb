"""Images in data URLs of every spelling, and images that are sent as text."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidImage, InvalidRequest
from service.gateway.media.content import Picture
from service.gateway.media.data_urls import NotBase64, base64_of, decode, holds_picture
from service.gateway.media.decoders import Decoders
from service.gateway.media.headers import size_in_base64
from service.gateway.media.reader import Media
from service.items import Item
from service.limits import Limits
from tests.gateway.encoded_pictures import PICTURES

PNG = PICTURES["png"]
ENCODED = base64.b64encode(PNG).decode()
SAFE = base64.urlsafe_b64encode(PNG).decode()
MEDIA = Media(Limits(), Decoders())


def wrapped(text: str) -> str:
    return "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))


SPELLINGS = {
    "bare": ENCODED,
    "unpadded": ENCODED.rstrip("="),
    "url-safe": SAFE,
    "url-safe and unpadded": SAFE.rstrip("="),
    "in lines": wrapped(ENCODED),
    "plain": f"data:image/png;base64,{ENCODED}",
    "with a parameter": f"data:image/png;charset=utf-8;base64,{ENCODED}",
    "with several": f"data:image/png; charset=utf-8;name=a b.png;base64,{ENCODED}",
    "with a long one": f"data:image/png;name={'n' * 200};base64,{ENCODED}",
    "in capitals": f"DATA:IMAGE/PNG;BASE64,{ENCODED}",
    "of another type": f"data:application/octet-stream;base64,{SAFE.rstrip('=')}",
    "of no type": f"data:;base64,{ENCODED}",
    "with space before": f"  data:image/png;base64,{ENCODED}\n",
    "unpadded in a URL": f"data:image/x-png;charset=utf-8;base64,{SAFE.rstrip('=')}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_the_same_however_it_is_spelt(spelling: str, kind: str) -> None:
    safe = base64.urlsafe_b64encode(PICTURES[kind]).decode()
    source = (
        SPELLINGS[spelling]
        .replace(ENCODED, base64.b64encode(PICTURES[kind]).decode())
        .replace(SAFE, safe)
    )
    for item in (
        Item(image=source),
        Item.validated({"content": [{"type": "image_url", "image_url": {"url": source}}]}),
    ):
        (part,) = MEDIA.resolve(item, ("query",))
        assert isinstance(part, Picture)
        if spelling in ("bare", "url-safe", "plain", "with a parameter"):
            assert part.data == PICTURES[kind]
            assert size_in_base64(source) == part.size


@pytest.mark.parametrize(
    "source",
    [
        "data:image/png,rawbytes",
        "data:image/png;base64",
        "data:",
        f"data:image/png;name={'n' * 600};base64,{ENCODED}",
    ],
)
def test_a_data_url_that_is_not_in_base64_is_refused(source: str) -> None:
    with pytest.raises(InvalidImage) as refused:
        MEDIA.resolve(Item(image=source), ("documents", 3))
    assert (
        refused.value.at(("documents", 3, "image"))
        .sentence()
        .startswith("documents[3].image: an image's data URL")
    )


@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.integers(1, 80))
def test_base64_is_read_in_either_alphabet_with_or_without_padding(
    data: bytes, safe: bool, padded: bool, line: int
) -> None:
    encoded = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    encoded = encoded if padded else encoded.rstrip("=")

    assert (
        decode("\n".join(encoded[start : start + line] for start in range(0, len(encoded), line)))
        == data
    )


@pytest.mark.parametrize(
    "encoded", ["a", "abcde", "ab=cd", "ab!d", "äbcd", "a\x00bc", "====a", "{}"]
)
def test_what_is_no_base64_is_refused(encoded: str) -> None:
    with pytest.raises(NotBase64):
        decode(encoded)


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(text: str) -> None:
    found = base64_of(text)
    assert found is None or text.endswith(found)
    holds_picture(text)


URL = f"data:image/png;base64,{ENCODED}"
AS_TEXT = {
    "after words": f"see {URL}",
    "in markdown": f"# Title\n\n![a chart]({URL})\n\nMore text.",
    "in HTML": f'<p>Hello</p><img src="{URL}" alt="x"><p>world</p>',
    "in JSON": json.dumps({"image": URL}),
    "in JSON in JSON": json.dumps(json.dumps({"image": URL})),
    "in PHP's JSON": json.dumps({"image": URL}).replace("/", "\\/"),
    "in CSS": f"a {{ background: url('{URL.replace('png', 'svg+xml')}') }}",
    "in capitals": f"see {URL[:21].upper()},{ENCODED}",
    "with parameters": f"see data:image/jpeg;charset=utf-8;base64,{ENCODED}",
    "url-safe": f"see data:image/webp;base64,{SAFE}",
    "at the end of a long text": "word " * 15_000 + URL,
    "alone": URL,
    "of another type, alone": f"data:application/pdf;base64,{ENCODED}",
}


@pytest.mark.parametrize("where", AS_TEXT)
def test_a_picture_in_a_text_is_refused_and_not_read_as_words(where: str) -> None:
    text = AS_TEXT[where]
    part = {"content": [{"type": "text", "text": "x"}, {"type": "text", "text": text}]}
    for item in (Item(text=text), Item.validated(part)):
        with pytest.raises(InvalidRequest) as refused:
            MEDIA.resolve(item, ("documents", 3))
        assert (
            refused.value.sentence()
            == "documents[3] holds a picture as text, in a data URL: send it as an image."
        )


@pytest.mark.parametrize(
    "text",
    [
        "A data URL begins with data:image/png;base64, and goes on in base64.",
        "data:image/png;base64,... is how a picture is written into a page.",
        "the data: image/png and base64, both",
        (
            "data:text/plain;base64 is another kind; see"
            " data:text/plain;base64,aGVsbG8gd29ybGQhIGhlbGxvIHdvcmxkIQ== for one"
        ),
        ";base64," * 1_000,
        "data:image/" * 1_000,
        "data:image/png" + ";a" * 1_000,
    ],
)
def test_a_text_about_data_urls_is_a_text(text: str) -> None:
    assert [
        part.text
        for part in MEDIA.resolve(Item(text=text), ("query",))
        if not isinstance(part, Picture)
    ] == [text]
