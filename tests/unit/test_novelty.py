"""How far an observation is from a reference drive: one formula for trainer and robot, and nothing it cannot tell."""

import math

import msgspec
import numpy as np
import pytest

from contracts.errors import BundleManifestInvalidError
from contracts.manifest import DriftReference, Manifest, decode_manifest, encode_manifest
from contracts.observation import BEAMS, OBSERVATION_SIZE
from navigation.novelty import BEFORE, BLOCKS, CAP, SIZES, Novelty, drift_reference
from tests.support.fleet import make_manifest

RNG = np.random.default_rng(3)


def drive(rows: int = 4000) -> np.ndarray:
    """Observations float32[rows, 83] whose beams of before are almost those of now."""
    found = RNG.normal(3.0, 1.0, (rows, OBSERVATION_SIZE)).astype(np.float32)
    found[:, BEFORE : BEFORE + BEAMS] = found[:, :BEAMS] + RNG.normal(0.0, 0.1, (rows, BEAMS))
    return found


OBSERVATIONS = drive()
REFERENCE = drift_reference(OBSERVATIONS)


def by_hand(row: np.ndarray) -> float:
    """The docstring, read out."""
    features = row.astype(np.float64)
    features[BEFORE : BEFORE + BEAMS] = row[:BEAMS] - row[BEFORE : BEFORE + BEAMS]
    worst = -math.inf
    for block, (begin, size) in enumerate(zip(BLOCKS, SIZES, strict=True)):
        scores = [
            min(abs(features[k] - REFERENCE.mean[k]) / REFERENCE.std[k], CAP)
            for k in range(begin, begin + size)
        ]
        typical, rare = REFERENCE.typical[block], REFERENCE.rare[block]
        worst = max(worst, 2.0 * (sum(scores) / size - typical) / (rare - typical))
    return worst


def test_the_robots_number_is_the_formulas() -> None:
    novelty = Novelty(REFERENCE)
    for row in np.concatenate(
        [OBSERVATIONS[:50], RNG.uniform(-20, 60, (50, OBSERVATION_SIZE)).astype(np.float32)]
    ):
        assert novelty.of(row) == pytest.approx(by_hand(row), abs=2e-4)


def test_what_was_seen_is_rarely_beyond_two_and_hardly_ever_beyond_three() -> None:
    found = np.array([Novelty(REFERENCE).of(row) for row in OBSERVATIONS])
    assert 0.0 < np.mean(found > 2.0) <= 3 * 0.001 + 1e-9
    assert np.mean(found > 3.0) == 0.0
    assert abs(np.median(found)) < 1.0


@pytest.mark.parametrize(
    ("begin", "end", "change"),
    [(0, 2 * BEAMS, lambda beams: beams * 0.0 + 8.0), (0, BEAMS, lambda beams: RNG.permutation(beams)),
     (2 * BEAMS, OBSERVATION_SIZE, lambda rest: rest + 8.0)],
    ids=["a hall nobody saw", "beams that do not belong together", "a goal and speeds like none"],
)  # fmt: skip
def test_a_shift_of_any_block_is_beyond_three(begin: int, end: int, change: object) -> None:
    novelty = Novelty(REFERENCE)
    for row in OBSERVATIONS[:50].copy():
        row[begin:end] = change(row[begin:end])  # type: ignore[operator]
        assert novelty.of(row) > 3.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", [0, BEFORE, OBSERVATION_SIZE - 1])
def test_one_value_that_is_none_never_reads_as_familiar(value: float, index: int) -> None:
    novelty = Novelty(REFERENCE)
    usual = novelty.of(OBSERVATIONS[0])
    row = OBSERVATIONS[0].copy()
    row[index] = value
    found = novelty.of(row)
    assert math.isnan(found) if math.isnan(value) else found >= usual
    assert novelty.of(OBSERVATIONS[0]) == usual, "nothing of it is left"


def test_a_manifest_carries_the_reference_whole_and_goes_without() -> None:
    manifest = make_manifest(drift_reference=REFERENCE)
    assert decode_manifest(encode_manifest(manifest)).drift_reference == REFERENCE
    assert len(encode_manifest(manifest)) < 8 * 1024
    old = msgspec.json.decode(encode_manifest(make_manifest()))
    del old["drift_reference"]
    assert decode_manifest(msgspec.json.encode(old)).drift_reference is None


@pytest.mark.parametrize(
    "change",
    [{"std": (0.0, *REFERENCE.std[1:])}, {"mean": REFERENCE.mean[1:]}, {"typical": REFERENCE.rare},
     {"rare": (*REFERENCE.rare, 1.0)}, {"std": (-1.0, *REFERENCE.std[1:])}],
)  # fmt: skip
def test_a_reference_that_cannot_be_is_refused(change: dict[str, tuple[float, ...]]) -> None:
    value = msgspec.to_builtins(make_manifest()) | {
        "drift_reference": msgspec.to_builtins(REFERENCE) | change
    }
    with pytest.raises(BundleManifestInvalidError, match="drift"):
        decode_manifest(msgspec.json.encode(value))


def test_the_same_drive_gives_the_same_reference() -> None:
    assert drift_reference(OBSERVATIONS) == REFERENCE
    assert isinstance(REFERENCE, DriftReference)
    # Optional fields, in the order in which they came: older manifests end before them.
    assert Manifest.__struct_fields__[-2:] == ("drift_reference", "action_entropy_nats")
