"""``outrider VERB``: finds the verb's file and imports only that one."""

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

VERSION = "0.1.0"
VERBS = {
    "demo": "Everything on one machine: train, release, drive, update, report.",
    "sim": "Warehouses: generate, check, render, run (with ROS 2).",
    "train": "Train a policy; resume a run.",
    "sweep": "Search over training configs, each trial a run.",
    "tune": "Search for the best settings of a rule-based baseline.",
    "evaluate": "Compare controllers in PyBullet on floors nobody trained on.",
    "ope": "What a policy would have earned, from episodes logged with another.",
    "reward": "Show the reward's terms; audit what it really pays for.",
    "bundle": "Export, pack, inspect and verify policy bundles.",
    "keys": "Make the keys of a fleet, name its people.",
    "hub": "Run the fleet's hub.",
    "release": "Register a bundle in the hub's catalogue.",
    "update": "Update a robot from a USB stick.",
    "rollout": "Send a release to robots, in stages that two people approved.",
    "audit": "Who did what to the fleet, when and why.",
    "fleet": "What the robots run; who may connect, tokens for new robots.",
    "agent": "Run a robot's agent; enrol it, arm it, stop it, load a policy.",
    "firmware": "The motor controller: emulate, monitor, set, flash, soak.",
    "episodes": "The fleet's trips as a data set: query, sample, export.",
    "logs": "What happened on a robot: its own record, offline.",
    "doctor": "Is this robot well? One verdict, and what to do.",
}
USAGE_ERROR = 2
INTERRUPTED = 130


def fail(message: str, code: int = 1) -> typer.Exit:
    """Print one clear line to standard error; raise what is returned to end with ``code``."""
    typer.secho(f"outrider: {message}", err=True, fg=typer.colors.RED)
    return typer.Exit(code)


@contextmanager
def failing_plainly(*kinds: type[Exception], code: int = 1) -> Iterator[None]:
    """Turn errors of these kinds, and of files, into one line and an exit code."""
    try:
        yield
    except kinds as error:
        raise fail(str(error), code) from None
    except OSError as error:
        raise fail(f"{error.filename or 'disk'}: {error.strerror}", code) from None


def usage() -> str:
    """The list of verbs, made without importing one of them."""
    lines = [
        "Learned policies on warehouse robots: fast, safe, up to date.",
        "",
        "Usage: outrider VERB [OPTIONS]      outrider VERB --help      outrider --version",
        "",
    ]
    lines += [f"  {verb:<10}{about}" for verb, about in VERBS.items()]
    return "\n".join([*lines, "", "First time here:  outrider demo"])


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``outrider`` command; ends the process with the verb's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        typer.echo(usage())
        sys.exit(0 if arguments else USAGE_ERROR)
    verb, *rest = arguments
    if verb == "--version":
        typer.echo(f"outrider {VERSION}")
        sys.exit(0)
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "see 'outrider --help'"
        typer.secho(f"outrider: no verb '{verb}'; {hint}", err=True, fg=typer.colors.RED)
        sys.exit(USAGE_ERROR)
    try:
        module = importlib.import_module(f"outrider.verbs.{verb}")
        module.app(args=rest, prog_name=f"outrider {verb}")
    except KeyboardInterrupt:
        typer.secho("outrider: interrupted", err=True, fg=typer.colors.RED)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
