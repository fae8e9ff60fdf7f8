"""Fuzz the host's side of the serial protocol: ``python -m tools.fuzz_python [--bytes N]``.

atheris is no dependency of the project, and does not install everywhere: its venv is ``build/fuzz/venv``.
Where it does not install, that is said, and nothing is fuzzed. The corpus stays in ``build/fuzz/corpus``.
"""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "fuzz"
NEEDS = ("atheris==3.0.0", "cobs==1.2.2", "msgspec==0.22.0", "cryptography==50.0.2")
INPUT_MAX_BYTES = 4096
MEMORY_MAX_MB = 1500
SEEDS = 40
INSTALL_MAX_S = 600.0


def make_venv(folder: Path) -> Path | None:
    """The venv's Python, made where it is missing; None where atheris does not install."""
    python = folder / "bin" / "python"
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *NEEDS],
    )
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_MAX_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"not fuzzed: {error}", file=sys.stderr)
            return None
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()
            why = lines[-1] if lines else f"exit code {done.returncode}"
            print(f"not fuzzed: {' '.join(NEEDS)} cannot be installed here: {why}", file=sys.stderr)
            return None
    return python


def make_seeds(corpus: Path) -> None:
    """Long and short inputs to begin with; those of earlier runs stay."""
    corpus.mkdir(parents=True, exist_ok=True)
    rng = random.Random(7)
    for place in range(SEEDS):
        (corpus / f"seed-{place:02}").write_bytes(rng.randbytes(3000 if place % 2 else 300))


def main() -> int:
    """Make the venv, fuzz; 0 too where it cannot be installed, as then nothing was found wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bytes", type=float, default=1e9, help="into the parser")
    arguments = parser.parse_args()
    python = make_venv(FOLDER / "venv")
    if python is None:
        return 0
    make_seeds(FOLDER / "corpus")
    command = [
        str(python),
        str(ROOT / "tools" / "fuzz_link.py"),
        f"-max_len={INPUT_MAX_BYTES}",
        "-len_control=0",
    ]
    command += [f"-rss_limit_mb={MEMORY_MAX_MB}", f"-artifact_prefix={FOLDER}/", str(FOLDER / "corpus")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OUTRIDER_FUZZ_BYTES": str(arguments.bytes)}
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
