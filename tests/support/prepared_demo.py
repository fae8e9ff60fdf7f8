"""``outrider demo`` with the first half done: ``python -m tests.support.prepared_demo FINISHED OPTION...``.

Keys and signed bundles are copied from a finished demonstration, instead of training them again; everything
from the start of the hub on is the real thing. For tests of what happens when it is interrupted there.
"""

import shutil
import sys
from pathlib import Path

from outrider.cli import main
from outrider.demo.children import Children
from outrider.demo.run import VERSIONS, Demo


def prepare_from(finished: Path) -> None:
    """Make every demonstration of this process take what ``finished`` has."""

    def prepare(demo: Demo, _: Children) -> None:
        shutil.copytree(finished / "keys", demo.keys)
        if demo.serial and (finished / "firmware").exists():
            shutil.copytree(finished / "firmware", demo.firmware)
        for version in VERSIONS:
            shutil.copy(finished / demo.bundles[version].name, demo.bundles[version])

    Demo._prepare = prepare  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    prepare_from(Path(sys.argv[1]))
    main(["demo", *sys.argv[2:]])
