"""The wire's codec: what goes in comes out; what is not ours is refused with words."""

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import messages
from contracts.errors import MessageError
from contracts.messages import (
    Chunk,
    FetchChunk,
    FileChunk,
    Records,
    decode_from_client,
    decode_from_hub,
    encode,
)

HEX64 = st.text("0123456789abcdef", min_size=64, max_size=64)
HEX32 = st.text("0123456789abcdef", min_size=32, max_size=32)
COUNT = st.integers(0, 2**63 - 1)


@given(HEX64, COUNT, st.binary(max_size=2000))
def test_chunks_survive_the_wire(digest: str, offset: int, data: bytes) -> None:
    chunk = Chunk(digest, offset, data)
    assert decode_from_hub(encode(chunk)) == chunk
    fetch = FetchChunk(digest, offset)
    assert decode_from_client(encode(fetch)) == fetch


@given(HEX32, COUNT, st.integers(1, messages.RECORDS_MAX_COUNT), st.binary(max_size=2000))
def test_records_survive_the_wire(log_id: str, first: int, count: int, frames: bytes) -> None:
    records = Records(log_id, first, count, frames)
    assert decode_from_client(encode(records)) == records


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, encode(FetchChunk("a" * 64, 0))[:8] + noise):
        for decode in (decode_from_client, decode_from_hub):
            try:
                decode(data)
            except MessageError:
                continue


def test_another_version_is_told_apart() -> None:
    data = encode(FetchChunk("a" * 64, 0))
    with pytest.raises(MessageError, match="install the same outrider version"):
        decode_from_client(bytes(8) + data[8:])


@pytest.mark.parametrize(
    "message",
    [
        FetchChunk("A" * 64, 0),
        FetchChunk("a" * 64, -1),
        Records("a" * 32, 1, 513, b""),
        Records("a" * 32, 1, 0, b""),
    ],
)
def test_values_beyond_their_limits(message: messages.FromClient) -> None:
    with pytest.raises(MessageError):
        decode_from_client(encode(message))


def test_a_message_too_long() -> None:
    with pytest.raises(MessageError, match="may have"):
        decode_from_client(encode(FetchChunk("a" * 64, 0)) + bytes(messages.MESSAGE_MAX_BYTES))


def test_the_protocol_is_what_it_was() -> None:
    """Golden vector: changes only when the wire format is meant to change."""
    assert encode(FetchChunk("0" * 64, 7))[8:].hex() == "93aa46657463684368756e6bd940" + "30" * 64 + "07"


@given(st.binary(min_size=300, max_size=2000), COUNT)
def test_files_survive_deflated(data: bytes, offset: int) -> None:
    chunk = FileChunk("image/timestamp.json", offset, len(data), True, data)
    assert decode_from_hub(encode(chunk)) == chunk
    text = msgspec.structs.replace(chunk, data=data.hex().encode())
    assert decode_from_hub(encode(text)) == text
    assert len(encode(text)) < len(text.data)


@pytest.mark.parametrize("what", ["bomb", "cut", "followed", "noise"])
def test_deflated_nonsense_is_refused(what: str) -> None:
    prefix = encode(FetchChunk("a" * 64, 0))[:8]
    good = zlib.compress(bytes(1000), wbits=-15)
    body = {
        "bomb": zlib.compress(bytes(64 * 1024 * 1024), wbits=-15),
        "cut": good[:-3],
        "followed": good + b"more",
        "noise": b"noise",
    }[what]
    for decode in (decode_from_client, decode_from_hub):
        with pytest.raises(MessageError, match="packed message"):
            decode(prefix + b"\xc1" + body)
