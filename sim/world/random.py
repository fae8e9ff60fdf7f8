"""A random stream per world inside compiled code: SplitMix64 (Steele, Lea, Flood 2014). Same seed, same bits."""

import numba
import numpy as np
import numpy.typing as npt


def streams(seed: int, count: int) -> npt.NDArray[np.uint64]:
    """Independent starting states, uint64[count]."""
    states: npt.NDArray[np.uint64] = (
        np.random.SeedSequence(seed).generate_state(count, np.uint64).astype(np.uint64)
    )
    return states


GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@numba.njit(cache=True, inline="always")
def restart(states, base, index, number):  # type: ignore[no-untyped-def]
    """Begin stream ``index`` anew for the event ``number``: it depends on ``base`` uint64[n] and the number only."""
    states[index] = base[index] ^ (np.uint64(number + 1) * GOLDEN)


@numba.njit(cache=True, inline="always")
def uniform(states, index):  # type: ignore[no-untyped-def]
    """The next value in [0, 1) of stream ``index``; advances ``states`` uint64[n] in place."""
    states[index] += GOLDEN
    z = states[index]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)
