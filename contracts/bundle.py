"""Reading and verifying bundles. Never signing: that is ``trainer/release``'s alone.

A bundle has exactly one encoding: four stored (not compressed) members in a fixed order with fixed time
stamps. A reader takes the members out, encodes them again and wants the same bytes, so nothing can hide
between them.
"""

import io
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from contracts.canonical import digest_hex
from contracts.errors import (
    BundleDamagedError,
    BundleGoldenInvalidError,
    BundleLimitsExceededError,
    BundleNotCanonicalError,
    BundleTooLargeError,
    BundleUnreadableError,
    BundleWrongLayoutError,
    BundleWrongMembersError,
    BundleWrongMonitorError,
    BundleWrongRobotError,
)
from contracts.manifest import (
    BUNDLE_MAX_BYTES,
    MANIFEST_MAX_BYTES,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from contracts.observation import COMMAND_SIZE
from contracts.onnx_scan import scan_network
from contracts.provenance import PROVENANCE_MAX_BYTES, TrustedKeys, verify_provenance
from contracts.robot import RobotModel

POLICY_MEMBER = "policy.onnx"
MANIFEST_MEMBER = "manifest.json"
GOLDEN_MEMBER = "golden.npz"
PROVENANCE_MEMBER = "provenance.dsse.json"
POLICY_MAX_BYTES = 24 * 1024 * 1024
GOLDEN_MAX_BYTES = 4 * 1024 * 1024
GOLDEN_MAX_ROWS = 4096
MEMBER_MAX_BYTES = {
    POLICY_MEMBER: POLICY_MAX_BYTES,
    MANIFEST_MEMBER: MANIFEST_MAX_BYTES,
    GOLDEN_MEMBER: GOLDEN_MAX_BYTES,
    PROVENANCE_MEMBER: PROVENANCE_MAX_BYTES,
}
_GOLDEN_ARRAYS = ("observations.npy", "commands.npy")
NPY_HEADER_BYTES = 128
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00\{'descr': '<f4', 'fortran_order': False, "
    rb"'shape': \((\d{1,6}), (\d{1,6})\), \} *\n$"
)
_END = struct.Struct("<4s4H2IH")
"""Zip's end of central directory, without a comment."""
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class VerifiedBundle:
    """A bundle whose every check has passed; nothing else makes one of these."""

    digest: str
    manifest: Manifest
    policy_onnx: bytes
    golden_observations: Floats
    golden_commands: Floats
    signed_by: tuple[str, ...]


def encode_zip(members: dict[str, bytes]) -> bytes:
    """A deterministic zip: members in the order given, stored, dated 1980-01-01."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _ZIP_EPOCH)
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()


def encode_golden(observations: Floats, commands: Floats) -> bytes:
    """The deterministic ``golden.npz``: observations float32[N, size], commands float32[N, 2]."""
    parts = {}
    for name, array in zip(_GOLDEN_ARRAYS, (observations, commands), strict=True):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(array, dtype="<f4"), version=(1, 0))
        parts[name] = buffer.getvalue()
    return encode_zip(parts)


def unsigned_members(
    manifest: Manifest, policy_onnx: bytes, observations: Floats, commands: Floats
) -> dict[str, bytes]:
    """The three members that get signed, checked as a reader would check them; raises BundleError."""
    members = {
        POLICY_MEMBER: policy_onnx,
        MANIFEST_MEMBER: encode_manifest(manifest),
        GOLDEN_MEMBER: encode_golden(observations, commands),
    }
    for name, data in members.items():
        _check_size(name, len(data), MEMBER_MAX_BYTES[name])
    scan_network(policy_onnx)
    decode_golden(members[GOLDEN_MEMBER], manifest.observation_size)
    return members


def verify_signed(source: Path | bytes, trusted: TrustedKeys) -> VerifiedBundle:
    """Everything that can be checked without knowing the robot: form, sizes, signatures, network, golden
    vectors.

    Raises:
        BundleError: A subclass for each reason.
    """
    data = read_bundle(source)
    members = _read_zip(data, MEMBER_MAX_BYTES)
    manifest = decode_manifest(members[MANIFEST_MEMBER])
    digests = {name: digest_hex(member) for name, member in members.items() if name != PROVENANCE_MEMBER}
    signed_by = verify_provenance(members[PROVENANCE_MEMBER], digests, manifest, trusted)
    scan_network(members[POLICY_MEMBER])
    observations, commands = decode_golden(members[GOLDEN_MEMBER], manifest.observation_size)
    return VerifiedBundle(
        digest_hex(data), manifest, members[POLICY_MEMBER], observations, commands, tuple(signed_by)
    )


def verify_bundle(
    source: Path | bytes,
    trusted: TrustedKeys,
    expected_layout_hash: str,
    robot_model: RobotModel,
    expected_monitor_hash: str | None = None,
) -> VerifiedBundle:
    """All of ``verify_signed``, and that the policy is for this robot, this layout and within its limits.

    ``expected_monitor_hash`` is given by whoever runs the monitor (control); None leaves that check to it.
    The golden vectors are not replayed here: that needs onnxruntime (``edge_agent/update/golden.py``).

    Raises:
        BundleError: A subclass for each reason.
    """
    bundle = verify_signed(source, trusted)
    manifest = bundle.manifest
    if manifest.observation_layout_hash != expected_layout_hash:
        raise BundleWrongLayoutError(
            f"expected observation layout {expected_layout_hash[:12]}, came "
            f"{manifest.observation_layout_hash[:12]}; "
            "train and export for this robot's layout, or update its software"
        )
    _check_robot(manifest, robot_model)
    if expected_monitor_hash is not None and manifest.monitor_hash != expected_monitor_hash:
        raise BundleWrongMonitorError(
            f"expected a policy trained behind monitor {expected_monitor_hash[:12]}, came "
            f"{manifest.monitor_hash[:12]}; a policy is unsafe behind another monitor: train it behind "
            "this one"
        )
    return bundle


def _check_robot(manifest: Manifest, model: RobotModel) -> None:
    wanted = (model.name, model.hash())
    if wanted not in [(ref.name, ref.hash) for ref in manifest.robot_models]:
        came = ", ".join(f"{ref.name} {ref.hash[:12]}" for ref in manifest.robot_models)
        raise BundleWrongRobotError(
            f"expected a policy for {model.name} {wanted[1][:12]}, came one for {came}"
        )
    limits = manifest.limits
    for name, asked, allowed in (
        ("speed_max_mps", limits.speed_max_mps, model.speed_max_mps),
        ("turn_rate_max_radps", limits.turn_rate_max_radps, model.turn_rate_max_radps),
        ("reverse_max_mps", limits.reverse_max_mps, model.reverse_max_mps),
    ):
        if not asked <= allowed:
            raise BundleLimitsExceededError(
                f"{name}: {model.name} allows {allowed}, the policy asks for {asked}"
            )


def read_bundle(source: Path | bytes) -> bytes:
    """The file's bytes, at most BUNDLE_MAX_BYTES; raises BundleUnreadableError, BundleTooLargeError."""
    if isinstance(source, bytes):
        data = source
    else:
        try:
            with source.open("rb") as file:
                data = file.read(BUNDLE_MAX_BYTES + 1)
        except OSError as error:
            raise BundleUnreadableError(f"no bundle at {source} ({error.strerror}); check the path") from None
    _check_size("the bundle", len(data), BUNDLE_MAX_BYTES)
    return data


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise BundleTooLargeError(f"{name} may have {limit} bytes, came {size}")


def _read_zip(data: bytes, limits: dict[str, int]) -> dict[str, bytes]:
    """Members of a zip that ``encode_zip`` made from exactly the names in ``limits``."""
    end = _END.unpack(data[-_END.size :]) if len(data) >= _END.size else (b"",)
    if end[0] != b"PK\x05\x06" or end[5] + end[6] != len(data) - _END.size:
        raise BundleDamagedError(
            f"expected a zip directory at the end of {len(data)} bytes, came none that fits; "
            "the file is cut or has been added to: fetch the bundle again"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_members(infos, limits)
            members = {info.filename: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise BundleDamagedError(f"not a whole zip file ({error}); fetch the bundle again") from None
    if encode_zip(members) != data:
        raise BundleNotCanonicalError(
            "bytes beside or between the members; fetch the bundle again or export it anew"
        )
    return members


def _check_members(infos: list[zipfile.ZipInfo], limits: dict[str, int]) -> None:
    names = [info.filename for info in infos]
    if names != list(limits):
        came = ", ".join(repr(name[:40]) for name in names[:8])
        raise BundleWrongMembersError(f"expected the members {', '.join(limits)} in this order, came {came}")
    for info in infos:
        _check_size(info.filename, info.file_size, limits[info.filename])
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise BundleNotCanonicalError(
                f"{info.filename} is compressed; bundles store their members as they are"
            )


def decode_golden(data: bytes, observation_size: int) -> tuple[Floats, Floats]:
    """Read ``golden.npz``: observations float32[N, observation_size], commands float32[N, 2], all finite.

    Raises:
        BundleError: Not the agreed members, shapes, types or sizes.
    """
    parts = _read_zip(data, dict.fromkeys(_GOLDEN_ARRAYS, GOLDEN_MAX_BYTES))
    observations, commands = (_read_array(name, parts[name]) for name in _GOLDEN_ARRAYS)
    rows = observations.shape[0]
    if not 1 <= rows <= GOLDEN_MAX_ROWS:
        raise BundleGoldenInvalidError(
            f"expected 1 to {GOLDEN_MAX_ROWS} golden rows, came shape {observations.shape}"
        )
    if observations.shape != (rows, observation_size) or commands.shape != (rows, COMMAND_SIZE):
        raise BundleGoldenInvalidError(
            f"expected golden shapes ({rows}, {observation_size}) and ({rows}, {COMMAND_SIZE}), "
            f"came {observations.shape} and {commands.shape}"
        )
    if not (np.isfinite(observations).all() and np.isfinite(commands).all()):
        raise BundleGoldenInvalidError("golden vectors hold NaN or infinity; export the policy anew")
    return observations, commands


def _read_array(name: str, data: bytes) -> Floats:
    """Only what ``encode_golden`` writes: numpy's own header reader evaluates text, this one does not."""
    found = _NPY_HEADER.match(data[:NPY_HEADER_BYTES])
    if found is None:
        raise BundleGoldenInvalidError(
            f"{name}: expected a two-dimensional float32 array in C order; export anew"
        )
    shape = int(found[1]), int(found[2])
    if len(data) - NPY_HEADER_BYTES != 4 * shape[0] * shape[1]:
        raise BundleGoldenInvalidError(f"{name}: shape {shape} does not fit {len(data)} bytes; export anew")
    return np.frombuffer(data, dtype="<f4", offset=NPY_HEADER_BYTES).reshape(shape)
