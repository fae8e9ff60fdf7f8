"""Bundles: deterministic, and every way to be wrong refused by its own name."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts import errors
from contracts.bundle import (
    GOLDEN_MEMBER,
    MANIFEST_MEMBER,
    POLICY_MAX_BYTES,
    POLICY_MEMBER,
    VerifiedBundle,
    decode_golden,
    encode_golden,
    encode_zip,
    verify_bundle,
)
from contracts.keyring import TRUSTED_FILE
from contracts.manifest import BUNDLE_MAX_BYTES, CommandLimits, RobotModelRef
from contracts.observation import ROUTING_LAYOUT
from contracts.onnx_scan import scan_network
from contracts.provenance import ReleaseKey, TrustedKeys
from contracts.robot import AMR_SMALL
from edge_agent.update.golden import replay_golden
from tests.support.fleet import POLICY_ONNX, golden, make_bundle, make_keys, make_manifest
from trainer.release.keys import create_release_key, load_signer
from trainer.release.pack import pack


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("bundle") / "keys")


@pytest.fixture(scope="module")
def trusted(keys: Path) -> TrustedKeys:
    return TrustedKeys.load(keys / TRUSTED_FILE)


@pytest.fixture(scope="module")
def good(keys: Path) -> bytes:
    return make_bundle(keys)


def verify(data: bytes | Path, trusted: TrustedKeys, monitor: str | None = None) -> VerifiedBundle:
    return verify_bundle(data, trusted, ROUTING_LAYOUT.hash(), AMR_SMALL, monitor)


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_good_bundle_is_verified_and_replays(good: bytes, trusted: TrustedKeys) -> None:
    bundle = verify(good, trusted, monitor="ab" * 32)
    assert bundle.manifest == make_manifest()
    assert bundle.signed_by == ("release",)
    assert bundle.policy_onnx == POLICY_ONNX
    assert replay_golden(bundle) <= 1e-5


def test_same_inputs_same_bytes(good: bytes, keys: Path) -> None:
    assert make_bundle(keys) == good


def test_every_byte_counts(good: bytes, trusted: TrustedKeys) -> None:
    for at in range(0, len(good), 97):
        changed = bytearray(good)
        changed[at] ^= 0x20
        with pytest.raises(errors.BundleError):
            verify(bytes(changed), trusted)


def test_truncated_at_any_length(good: bytes, trusted: TrustedKeys) -> None:
    for length in [0, 1, 21, 22, *range(100, len(good), 499), len(good) - 1]:
        with pytest.raises(errors.BundleDamagedError):
            verify(good[:length], trusted)


def _with(change: Callable[[dict[str, bytes]], None]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        parts = members(data)
        change(parts)
        return encode_zip(parts)

    return changed


def _compressed(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in members(data).items():
            archive.writestr(name, part)
    return buffer.getvalue()


def _bomb(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in members(data).items():
            archive.writestr(name, bytes(POLICY_MAX_BYTES + 1) if name == POLICY_MEMBER else part)
    return buffer.getvalue()


def _twice(data: bytes) -> bytes:
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(MANIFEST_MEMBER, b"{}")
    return buffer.getvalue()


TAMPERINGS: list[tuple[Callable[[bytes], bytes], type[errors.BundleError]]] = [
    (_with(lambda parts: parts.update({"extra.txt": b"x"})), errors.BundleWrongMembersError),
    (_with(lambda parts: parts.update({"../../etc/passwd": b"x"})), errors.BundleWrongMembersError),
    (_with(lambda parts: parts.update({"/absolute": b"x"})), errors.BundleWrongMembersError),
    (_with(lambda parts: parts.pop(GOLDEN_MEMBER)), errors.BundleWrongMembersError),
    (
        _with(lambda parts: parts.update({POLICY_MEMBER: POLICY_ONNX + b"\0"})),
        errors.BundleContentChangedError,
    ),
    (_with(lambda parts: parts.update({MANIFEST_MEMBER: b"{}"})), errors.BundleManifestInvalidError),
    (_with(lambda parts: parts.update({MANIFEST_MEMBER: bytes(70_000)})), errors.BundleTooLargeError),
    (_with(lambda parts: parts.update({"provenance.dsse.json": b"{}"})), errors.BundleProvenanceInvalidError),
    (_twice, errors.BundleWrongMembersError),
    (_compressed, errors.BundleNotCanonicalError),
    (_bomb, errors.BundleTooLargeError),
    (lambda data: b"prefix" + data, errors.BundleDamagedError),
    (lambda data: data + bytes(BUNDLE_MAX_BYTES), errors.BundleTooLargeError),
    (lambda _: b"no zip at all", errors.BundleDamagedError),
]


@pytest.mark.parametrize(("tamper", "expected"), TAMPERINGS)
def test_tampering_is_refused_by_name(
    tamper: Callable[[bytes], bytes], expected: type[errors.BundleError], good: bytes, trusted: TrustedKeys
) -> None:
    with pytest.raises(expected):
        verify(tamper(good), trusted)


def test_a_strangers_signature_does_not_count(trusted: TrustedKeys, tmp_path: Path) -> None:
    create_release_key(tmp_path / "stranger.pem")
    bundle = make_bundle(load_signer(tmp_path / "stranger.pem"))
    with pytest.raises(errors.BundleSignatureRefusedError, match="expected 1 good signature"):
        verify(bundle, trusted)


def test_a_threshold_of_two_wants_two_people(keys: Path, trusted: TrustedKeys, tmp_path: Path) -> None:
    second = create_release_key(tmp_path / "second.pem", "second")
    two = TrustedKeys(2, (*trusted.keys, second))
    signers = [load_signer(keys), load_signer(tmp_path / "second.pem")]
    with pytest.raises(errors.BundleSignatureRefusedError):
        verify(make_bundle(keys), two)
    both = pack(make_manifest(), POLICY_ONNX, *golden(), signers)
    assert verify(both, two).signed_by == ("release", "second")
    assert both == pack(make_manifest(), POLICY_ONNX, *golden(), signers[::-1])


def test_one_key_listed_twice_is_refused(trusted: TrustedKeys, tmp_path: Path) -> None:
    twice = {"threshold": 2, "keys": [{"name": n, "public_hex": trusted.keys[0].public_hex} for n in "ab"]}
    path = tmp_path / TRUSTED_FILE
    path.write_bytes(msgspec.json.encode(twice))
    with pytest.raises(errors.KeyFileError, match="listed twice"):
        TrustedKeys.load(path)
    with pytest.raises(ValueError, match="can never be met"):
        TrustedKeys(2, (ReleaseKey("a", "00" * 32),))


def test_for_another_robot_layout_monitor_or_limits(keys: Path, trusted: TrustedKeys) -> None:
    with pytest.raises(errors.BundleWrongLayoutError, match="expected observation layout"):
        verify(make_bundle(keys, observation_layout_hash="0" * 64), trusted)
    with pytest.raises(errors.BundleWrongRobotError):
        verify(make_bundle(keys, robot_models=(RobotModelRef(AMR_SMALL.name, "0" * 64),)), trusted)
    with pytest.raises(errors.BundleWrongMonitorError):
        verify(make_bundle(keys), trusted, monitor="0" * 64)
    edge = CommandLimits(AMR_SMALL.speed_max_mps, AMR_SMALL.turn_rate_max_radps, AMR_SMALL.reverse_max_mps)
    assert verify(make_bundle(keys, limits=edge), trusted)
    with pytest.raises(errors.BundleLimitsExceededError, match="speed_max_mps"):
        verify(make_bundle(keys, limits=CommandLimits(1.2000001, 1.8, 0.3)), trusted)


@pytest.mark.parametrize(
    "change",
    [{"release_counter": 0}, {"parity_max_abs": 1.1e-5}, {"control_rate_hz": 0.0}, {"policy_name": "../x"}],
)
def test_manifests_that_cannot_be(change: dict[str, object], keys: Path) -> None:
    with pytest.raises(errors.BundleManifestInvalidError):
        make_bundle(keys, **change)


def test_golden_vectors_that_differ_are_refused(keys: Path, trusted: TrustedKeys) -> None:
    observations, commands = golden()
    wrong = pack(make_manifest(), POLICY_ONNX, observations, commands + np.float32(2e-5), [load_signer(keys)])
    with pytest.raises(errors.BundleGoldenMismatchError, match="differ by"):
        replay_golden(verify(wrong, trusted))


def test_golden_files_that_lie() -> None:
    observations, commands = golden(4)
    assert decode_golden(encode_golden(observations, commands), 83)[0].shape == (4, 83)
    with pytest.raises(errors.BundleGoldenInvalidError):
        decode_golden(encode_golden(observations, commands[:3]), 83)
    with pytest.raises(errors.BundleGoldenInvalidError):
        decode_golden(encode_golden(observations * np.float32(np.nan), commands), 83)
    parts = members(encode_golden(observations, commands))
    huge = parts["observations.npy"].replace(b"(4, 83)", b"(9999999, 83)"[:7])
    with pytest.raises(errors.BundleError):
        decode_golden(encode_zip({**parts, "observations.npy": huge}), 83)


def test_networks_that_are_refused() -> None:
    assert scan_network(POLICY_ONNX) == ["Gemm", "Tanh", "Gemm", "Tanh", "Mul", "Add"]
    with pytest.raises(errors.BundleNetworkRefusedError, match="'Loop'"):
        scan_network(POLICY_ONNX.replace(b"Tanh", b"Loop"))
    for broken in (b"", b"\x00" * 40, b"\xff" * 40, POLICY_ONNX[:-40], POLICY_ONNX + POLICY_ONNX):
        with pytest.raises(errors.BundleNetworkRefusedError):
            scan_network(broken)


def test_external_tensor_data_is_refused() -> None:
    tensor = bytes([0x70, 1])  # data_location = EXTERNAL
    graph = bytes([0x0A, 6, 0x22, 4]) + b"Tanh" + bytes([0x2A, len(tensor)]) + tensor
    with pytest.raises(errors.BundleNetworkRefusedError, match="outside the file"):
        scan_network(bytes([0x3A, len(graph)]) + graph)
