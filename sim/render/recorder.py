"""Moving pictures of the floor: GIF or MP4, written frame by frame."""

import io
from collections import deque
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
from PIL import Image

from navigation.warehouse import Warehouse
from sim.errors import SimConfigError
from sim.render.painter import WIDTH_MAX_PX, WIDTH_MIN_PX, FloorPainter, Frame, Point
from sim.render.snapshot import FloorSnapshot

FRAMES_MAX = 20_000
TRAIL_FRAMES = 120
MOVING = (".gif", ".mp4")


class FloorRecorder:
    """Takes snapshots of one floor and writes them as ``.gif`` or ``.mp4``; use it as a context manager.

    The file appears under its own name once it is whole.

    Args:
        path: where to; the ending says the format.
        warehouse: the floor.
        frames_per_s: of the film.
        width_px: of the film.
        trail_frames: how many frames a robot's trail goes back.

    Raises:
        SimConfigError: another ending, or a place that cannot be written.
    """

    def __init__(
        self,
        path: Path,
        warehouse: Warehouse,
        frames_per_s: float = 20.0,
        width_px: int = 960,
        trail_frames: int = TRAIL_FRAMES,
    ) -> None:
        if path.suffix.lower() not in MOVING:
            raise SimConfigError(f"{path.name}: films end in {' or '.join(MOVING)}")
        if not path.parent.is_dir():
            raise SimConfigError(f"{path.parent}: no such folder; make it first")
        self._path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._painter = FloorPainter(warehouse, width_px)
        self._trail_frames = trail_frames
        self._trails: list[deque[Point]] = []
        self.frames = 0
        self.frames_dropped = 0
        self._writer: Any = _open_writer(self._partial, frames_per_s)

    def take(self, snapshot: FloorSnapshot) -> Frame | None:
        """Add one frame, and return it; None once ``FRAMES_MAX`` are there (later ones are counted)."""
        if self.frames >= FRAMES_MAX:
            self.frames_dropped += 1
            return None
        if not self._trails:
            self._trails = [deque(maxlen=self._trail_frames) for _ in snapshot.pose]
        for trail, (x, y, _) in zip(self._trails, snapshot.pose.tolist(), strict=True):
            trail.append((x, y))
        frame = self._painter.frame(snapshot, [list(trail) for trail in self._trails])
        self._writer.append_data(frame)
        self.frames += 1
        return frame

    def close(self, keep: bool = True) -> None:
        """Finish the file; ``keep=False`` removes it instead. May be called twice."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        if keep and self.frames:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> "FloorRecorder":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(keep=kind is None)


def _open_writer(path: Path, frames_per_s: float) -> Any:
    try:
        if path.suffix.lower() == ".gif":
            return imageio.get_writer(
                path, mode="I", duration=1000.0 / frames_per_s, loop=0, subrectangles=True
            )
        return imageio.get_writer(
            path, fps=frames_per_s, codec="libx264", quality=6, macro_block_size=2, ffmpeg_log_level="error"
        )
    except OSError as error:
        raise SimConfigError(f"{path.parent}: cannot be written: {error.strerror}") from None


def check_width(width_px: int) -> None:
    """Raise SimConfigError unless pictures can have that width."""
    if not WIDTH_MIN_PX <= width_px <= WIDTH_MAX_PX:
        raise SimConfigError(f"width is {width_px} pixels; it must be {WIDTH_MIN_PX} to {WIDTH_MAX_PX}")


def encode_png(frame: Frame) -> bytes:
    """uint8[height, width, 3] as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="png")
    return buffer.getvalue()
