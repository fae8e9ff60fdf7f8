"""Map images other than PGM, read with Pillow."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from contracts.errors import reason_of
from navigation.errors import MapImportError
from navigation.ros_map import IMAGE_SIZE_MAX_BYTES, check_size


def read_image(path: Path) -> npt.NDArray[np.float64]:
    """Grey values float64[rows, columns], 0 to 255, top row first; NaN where the image is transparent.

    Raises:
        MapImportError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > IMAGE_SIZE_MAX_BYTES:
            raise MapImportError(f"{path}: larger than {IMAGE_SIZE_MAX_BYTES} bytes; crop the map")
        with Image.open(path) as image:
            check_size(path, image.height, image.width)
            grey, alpha = image.convert("LA").split()
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise MapImportError(f"{path}: no image that can be read: {error}") from None
    except OSError as error:
        raise MapImportError(f"{path}: cannot be read: {reason_of(error)}") from None
    return np.where(np.asarray(alpha) == 255, np.asarray(grey, dtype=np.float64), np.nan)
