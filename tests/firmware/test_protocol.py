"""The schema, what is generated from it, and its bytes in Python and C."""

import importlib.util
import json
import math
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_interface.emulator.build import Target, core_sources, cross_compile
from firmware_interface.emulator.trials import any_frame, any_value, differential, fuzz
from firmware_interface.errors import FieldRangeError, ParameterError
from firmware_interface.protocol import codec, frames, schema
from firmware_interface.protocol.frames import Verdict
from firmware_interface.protocol.values import as_f32, checked_bits, from_bits, parameter_named

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden" / "frames.json"
BOUNDED = [(frame, field) for frame in schema.FRAMES for field in frame.fields if field.bounds is not None]
STOP = codec.encode(frames.Stop(7))


def a_frame(frame: schema.Frame, rng: random.Random) -> frames.AnyFrame:
    """A valid frame of this kind."""
    return frames.TYPES[frame.code](*(any_value(field, rng) for field in frame.fields))  # type: ignore[arg-type]


def test_what_is_generated_is_current() -> None:
    spec = importlib.util.spec_from_file_location("protocol_gen", ROOT / "tools" / "protocol_gen.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.stale() == [], "run tools/protocol_gen.py"


def test_a_changed_schema_needs_a_new_revision() -> None:
    assert len(schema.HISTORY) == schema.REVISION
    assert schema.HISTORY[-1] == schema.schema_hash() == frames.SCHEMA_HASH, (
        "raise REVISION, note the new hash"
    )


def test_every_frame_fits_one_cobs_block_and_ordered_ones_begin_alike() -> None:
    assert len({frame.code for frame in schema.FRAMES}) == len({frame.name for frame in schema.FRAMES})
    for frame in schema.FRAMES:
        assert frame.raw_bytes <= schema.RAW_MAX_BYTES
        if frame.ordered:
            assert [field.name for field in frame.fields[:2]] == ["session", "sequence"]


def test_golden_vectors_hold_both_ways_in_python_and_c(program: Path) -> None:
    vectors = json.loads(GOLDEN.read_text())
    assert {vector["frame"] for vector in vectors} == {frame.name for frame in schema.FRAMES}
    for vector in vectors:
        kind = frames.TYPES[vector["code"]]
        values = [bytes.fromhex(v) if isinstance(v, str) else v for v in vector["values"]]
        wire = bytes.fromhex(vector["wire"])
        assert codec.encode(kind(*values)) == wire
        assert codec.decode(wire[:-1]) == (Verdict.GOOD, kind(*values))
        asked = struct.pack("<H", len(wire) - 1) + wire[:-1]
        answer = subprocess.run([program, "codec"], input=asked, capture_output=True, check=True).stdout
        assert answer == struct.pack("<BH", Verdict.GOOD, len(wire)) + wire


@pytest.mark.parametrize(("frame", "field"), BOUNDED, ids=lambda value: value.name)
def test_bounds_are_allowed_and_what_lies_beyond_is_not(frame: schema.Frame, field: schema.Field) -> None:
    good = a_frame(frame, random.Random(1))
    low, high = field.bounds or (0, 0)
    for value in (low, high):
        changed = good._replace(**{field.name: as_f32(value) if field.kind == "f32" else int(value)})
        assert codec.decode(codec.encode(changed)[:-1]) == (Verdict.GOOD, changed)
    if field.kind == "f32":
        beyond = [math.nextafter(as_f32(low), -math.inf), math.nextafter(as_f32(high), math.inf)]
        beyond += [math.nan, math.inf, -math.inf]
    else:
        beyond = [low - 1, high + 1]
    for value in beyond:
        with pytest.raises(FieldRangeError, match=frame.name):
            codec.encode(good._replace(**{field.name: value}))


def test_what_does_not_fit_its_field_is_refused_not_cut() -> None:
    for wrong in (
        frames.FirmwareInfo(1, 0, 1, bytes(31), bytes(16)),
        frames.FirmwareInfo(1, 0, 1, bytes(33), bytes(16)),
        frames.Heartbeat(1, 2**32),
        frames.Heartbeat(-1, 1),
        frames.Heartbeat(1, 0.5),  # type: ignore[arg-type]
        frames.Stop("now"),  # type: ignore[arg-type]
        frames.Battery(1, None, 0.0, 0.0),  # type: ignore[arg-type]
    ):
        with pytest.raises(FieldRangeError, match="a field is out of its range"):
            codec.encode(wrong)


def asked_of_c(program: Path, encodings: list[bytes]) -> list[tuple[Verdict, bytes]]:
    """What the C core says of each, and how it encodes it again."""
    asked = b"".join(struct.pack("<H", len(item)) + item for item in encodings)
    answer = subprocess.run([program, "codec"], input=asked, capture_output=True, check=True).stdout
    found, at = [], 0
    for _ in encodings:
        verdict, size = struct.unpack_from("<BH", answer, at)
        found.append((Verdict(verdict), answer[at + 3 : at + 3 + size]))
        at += 3 + size
    assert at == len(answer)
    return found


def beyond_bounds() -> list[bytes]:
    """Each field just below and above its bounds, and as no number; each frame too short and too long."""
    found = []
    for frame in schema.FRAMES:
        good = a_frame(frame, random.Random(2))
        layout, raw = codec.LAYOUTS[frame.code], codec.encode_raw(good)
        found += [raw[:-1], raw + b"\1"]
        for place, field in enumerate(frame.fields):
            if field.bounds is None:
                continue
            low, high = (as_f32(bound) if field.kind == "f32" else int(bound) for bound in field.bounds)
            if field.kind == "f32":
                wrong: list[float] = [_next_f32(low, -1), _next_f32(high, 1), math.nan, math.inf, -math.inf]
            else:
                most = 2 ** (8 * field.size) - 1
                wrong = [
                    value
                    for value in (low - 1, high + 1, most)
                    if 0 <= value <= most and not low <= value <= high
                ]
            for value in wrong:
                fields = [*good]
                fields[place] = value
                found.append(layout.packer.pack(layout.code, *fields))
    return found


def _next_f32(value: float, direction: int) -> float:
    """The next number that 32 bits can hold, away from zero or across it."""
    bits = struct.unpack("<i", struct.pack("<f", value))[0]
    if value == 0.0:
        return float(direction) * 1e-45
    step = direction if value > 0 else -direction
    return float(struct.unpack("<f", struct.pack("<i", bits + step))[0])


def test_c_refuses_each_bound_and_length_as_python_does_and_encodes_none_of_it(program: Path) -> None:
    encodings = [codec.wrap(raw)[:-1] for raw in beyond_bounds()]
    assert len(encodings) > 150
    for encoding, (verdict, again) in zip(encodings, asked_of_c(program, encodings), strict=True):
        assert verdict is codec.decode(encoding)[0]
        assert verdict in (Verdict.OUT_OF_RANGE, Verdict.WRONG_LENGTH)
        assert again == b""


def test_c_and_python_name_the_same_fault_of_an_encoding(program: Path) -> None:
    cases = {
        b"": Verdict.TOO_SHORT,
        b"\x01": Verdict.TOO_SHORT,
        cobs.encode(bytes(4)): Verdict.TOO_SHORT,
        b"\x00": Verdict.BAD_COBS,
        b"\x03\x01\x00\x01": Verdict.BAD_COBS,
        b"\x05\x01\x01\x01": Verdict.BAD_COBS,
        b"\xff" + b"\x01" * 253: Verdict.BAD_COBS,
        b"\x01" * codec.WIRE_MAX_BYTES: Verdict.BAD_CRC,
        b"\x01" * (codec.WIRE_MAX_BYTES + 1): Verdict.TOO_LONG,
        b"\x08\x02\x07\x01\x01\x01\x01": Verdict.BAD_COBS,
        b"\x07\x02\x07\x01\x01\x01\x01": Verdict.BAD_CRC,
    }
    for encoding, (verdict, _) in zip(cases, asked_of_c(program, list(cases)), strict=True):
        assert (verdict, codec.decode(encoding)[0]) == (cases[encoding], cases[encoding]), encoding
    assert codec.decode_raw(b"") == (Verdict.TOO_SHORT, None)


def test_python_and_c_agree_on_every_verdict_and_byte(program: Path) -> None:
    result = differential(program, 100_000)
    assert result["differ"] == 0
    assert (
        min(
            result.get(v.name.lower(), 0)
            for v in Verdict
            if v not in (Verdict.UNKNOWN_CODE, Verdict.WRONG_LENGTH)
        )
        > 100
    )


@pytest.mark.parametrize(
    ("raw", "verdict"),
    [
        (b"\x99", Verdict.UNKNOWN_CODE),
        (b"\x02", Verdict.WRONG_LENGTH),
        (b"\x02\x07\x07", Verdict.WRONG_LENGTH),
        (b"\x02\x07", Verdict.GOOD),
        (b"", Verdict.TOO_SHORT),
    ],
)
def test_a_good_checksum_alone_is_not_enough(raw: bytes, verdict: Verdict, program: Path) -> None:
    encoded = cobs.encode(raw + zlib.crc32(raw).to_bytes(4, "little"))
    assert codec.decode(encoded)[0] is verdict
    asked = struct.pack("<H", len(encoded)) + encoded
    answer = subprocess.run([program, "codec"], input=asked, capture_output=True, check=True).stdout
    assert answer[0] == verdict


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=400), max_size=8))
def test_the_reader_takes_any_bytes_and_keeps_little(pieces: list[bytes]) -> None:
    reader = codec.Reader()
    for piece in pieces:
        reader.feed(piece)
        assert len(reader._partial) <= codec.WIRE_MAX_BYTES
    # In step again at the next zero byte, whatever came before.
    reader.feed(b"\0")
    assert reader.feed(STOP) == [frames.Stop(7)]


@pytest.mark.parametrize("first", [0, 1, 100, codec.WIRE_MAX_BYTES - 1, codec.WIRE_MAX_BYTES, 400])
def test_a_frame_that_comes_in_pieces_may_be_so_long_and_no_longer(first: int) -> None:
    for size, verdict in (
        (codec.WIRE_MAX_BYTES, Verdict.BAD_CRC),
        (codec.WIRE_MAX_BYTES + 1, Verdict.TOO_LONG),
        (600, Verdict.TOO_LONG),
    ):
        reader = codec.Reader()
        for piece in (b"\1" * min(first, size), b"\1" * (size - min(first, size))):
            assert reader.feed(piece) == []
            assert len(reader._partial) <= codec.WIRE_MAX_BYTES
        assert (reader.bad, reader.bad_total) == ({}, 0), "it has not ended"
        assert reader.feed(b"\0" + STOP[:-1]) == []
        assert (reader.bad, reader.bad_total) == ({verdict: 1}, 1)
        assert reader.feed(STOP[-1:] + b"\0" + STOP) == [frames.Stop(7)] * 2
        assert (reader.good, reader.bad_total, reader.resyncs) == (2, 1, 1)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_frames_survive_any_cutting_of_the_stream(seed: int, data: st.DataObject) -> None:
    rng = random.Random(seed)
    sent = [any_frame(rng) for _ in range(4)]
    stream = b"".join(map(codec.encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader = codec.Reader()
    came = [
        f for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) for f in reader.feed(stream[a:b])
    ]
    assert came == sent


def test_noise_costs_one_frame_at_most() -> None:
    rng = random.Random(3)
    for _ in range(500):
        reader = codec.Reader()
        noise = rng.randbytes(rng.randint(1, 600))
        came = reader.feed(noise + STOP + STOP)
        assert came[-1:] == [frames.Stop(7)]
        assert reader.good >= 1


def test_ten_million_bytes_leave_the_c_core_whole(program: Path) -> None:
    result = fuzz(program, 10_000_000, seed=11)
    assert result["bytes"] >= 10_000_000
    assert result["armed_steps"] > 100, "it must get as far as driving"


def test_parameters_are_ranged_and_typed() -> None:
    speed = parameter_named("speed_max_mps")
    for bound in (speed.low, speed.high):
        assert from_bits("f32", checked_bits(speed, bound)) == as_f32(bound)
    for wrong in (speed.low - 0.01, speed.high + 0.01, math.nan, math.inf):
        with pytest.raises(ParameterError, match=r"speed_max_mps is 0\.05 to 2 m/s"):
            checked_bits(speed, wrong)
    with pytest.raises(ParameterError, match="whole number"):
        checked_bits(parameter_named("watchdog_us"), 50_000.5)
    with pytest.raises(ParameterError, match="there are: speed_max_mps"):
        parameter_named("speed")


@pytest.mark.parametrize("target", Target)
def test_the_core_compiles_for_small_boards_and_fits(target: Target, tmp_path: Path) -> None:
    size = cross_compile(target, tmp_path)
    if size is None:
        pytest.skip("no arm-none-eabi-gcc here: 'apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi'")
    assert 4_000 < size.flash < 32_000
    assert 400 < size.memory < 2_000
    assert 100 < size.frame < 600


def test_cppcheck_finds_nothing() -> None:
    import shutil

    if shutil.which("cppcheck") is None:
        pytest.skip("no cppcheck here: 'apt-get install cppcheck'")
    command = [
        "cppcheck",
        "--std=c11",
        "--enable=warning,style,performance,portability",
        "--error-exitcode=1",
        "-q",
    ]
    done = subprocess.run([*command, *map(str, core_sources())], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_golden() -> None:
    """Write the golden vectors anew: ``python tests/firmware/test_protocol.py``; only for a new revision."""
    rng, vectors = random.Random(20), []
    for frame in schema.FRAMES:
        for _ in range(2):
            wire = codec.encode(a_frame(frame, rng))
            decoded = codec.decode(wire[:-1])[1]
            values = [v.hex() if isinstance(v, bytes) else v for v in decoded or ()]
            vectors.append({"frame": frame.name, "code": frame.code, "values": values, "wire": wire.hex()})
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(vector) for vector in vectors) + "\n]\n")


if __name__ == "__main__":
    make_golden()
    sys.exit(0)
