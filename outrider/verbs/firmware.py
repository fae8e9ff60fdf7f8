"""``outrider firmware emulate|monitor|params|pack|flash|soak``: the motor controller behind the serial link."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.cli import fail, failing_plainly
from outrider.verbs._operator import DEFAULT_KEYS, AsJson, Keys, print_json

if TYPE_CHECKING:
    from firmware_interface.emulator.process import Emulator
    from firmware_interface.link.client import FirmwareLink

app = typer.Typer(no_args_is_help=True, help="The motor controller: emulate, monitor, set, flash, soak.")
Port = Annotated[
    str, typer.Argument(help="Serial port, such as /dev/ttyACM0, or tcp://HOST:PORT.", show_default=False)
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the board.", min=0.1, max=600)]
BOARD = "host-emulator"


def _clear() -> AbstractContextManager[None]:
    """Turn the rooms' errors into one line and exit code 1."""
    from contracts.errors import ContractError
    from firmware_interface.errors import FirmwareError

    return failing_plainly(FirmwareError, ContractError)


@contextmanager
def _board(port: str, timeout_s: float) -> "Iterator[FirmwareLink]":
    from firmware_interface.link.client import FirmwareLink
    from firmware_interface.transport.ports import open_port

    with _clear(), FirmwareLink(lambda: open_port(port), stop_on_close=False) as link:
        link.wait_open(timeout_s)
        yield link


@app.command(
    epilog="Example:  outrider firmware emulate --link /tmp/board --line 'flip=100 drop=50'\n\n"
    "Then, in another window:  outrider firmware monitor /tmp/board\n\n"
    "A board that can be updated:  outrider firmware emulate --link /tmp/board --flash board.flash --keys keys"
)
def emulate(
    link: Annotated[Path | None, typer.Option(help="Keep a symbolic link to the port here.")] = None,
    tcp: Annotated[
        int | None, typer.Option(help="A TCP port instead; 0 chooses one.", min=0, max=65535)
    ] = None,
    flash_file: Annotated[Path | None, typer.Option("--flash", help="File of the board's memory.")] = None,
    plant: Annotated[
        Path | None, typer.Option(help="Socket of an outside robot, instead of the motor model.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="Key folder: the board is shipped with its first release key. Without: no updates."
        ),
    ] = None,
    line: Annotated[
        str,
        typer.Option(
            help="Faults, per million: flip, drop, burst, duplicate, hold; delay_us=N; wrong_baud=1."
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the faults.")] = 1,
    sanitized: Annotated[
        bool, typer.Option("--sanitized", help="With address and undefined sanitizers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the real C firmware on a pseudo-terminal until Ctrl-C.

    Lines typed here are control: unplug, plug, estop 1, bumper 1, battery 18, current 40, push 2 (rad/s, somebody turns
    its wheels), imu nan, silent 1, flash 0 (its memory does not answer), worn 1 (the next change of it fails),
    cut BYTES, restart 1, name BOARD, counts, line KEY=N ...
    """
    from firmware_interface.emulator.build import Kind, build
    from firmware_interface.emulator.process import Emulator

    if link is not None and not link.parent.is_dir():
        raise fail(f"{link.parent}: no such folder; make it first", 2)
    with _clear():
        program = build(Kind.SANITIZED if sanitized else Kind.FAST)
        key = board_key(keys) if keys else b""
        board = Emulator(program, link=link, tcp_port=tcp, flash=flash_file, plant=plant, seed=seed, key=key)
        with board:
            if line and board.ask(f"line {line}", "")["event"] != "done":
                raise fail(f"--line {line!r}: expected KEY=N, see --help", 2)
            if not as_json:
                typer.echo(f"board on {board.port}; Ctrl-C ends it", err=True)
            _relay(board, as_json)


def board_key(keys: Path) -> bytes:
    """What a board is shipped with to check its images: one key, for it keeps no list."""
    from contracts.keyring import TRUSTED_FILE
    from contracts.provenance import TrustedKeys
    from firmware_interface.emulator.build import signature_flags

    if not signature_flags():
        typer.echo("no libsodium here ('apt-get install libsodium-dev pkg-config'): no updates", err=True)
    return bytes.fromhex(TrustedKeys.load(keys / TRUSTED_FILE).keys[0].public_hex)


def _relay(board: "Emulator", as_json: bool) -> None:
    """Print events, pass typed lines on, until the emulator ends."""
    import json
    import sys
    import threading

    def typed() -> None:
        for text in sys.stdin:
            board.control(text.strip())

    threading.Thread(target=typed, daemon=True).start()
    shown = 0
    while board.process.poll() is None:
        for event in board.events[shown:]:
            shown += 1
            words = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("event", "us"))
            typer.echo(
                json.dumps(event) if as_json else f"{event['us'] / 1e6:12.3f}  {event['event']:<10}{words}"
            )
        time.sleep(0.05)


@app.command(epilog="Example:  outrider firmware monitor /dev/ttyACM0 --json --seconds 5")
def monitor(
    port: Port,
    seconds: Annotated[float, typer.Option(help="How long; 0: until Ctrl-C.", min=0)] = 0.0,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """Show what a board does and how the link is. It never arms.

    It opens a session of its own: a robot that somebody else was driving over this port stops.
    """
    from rich.console import Console
    from rich.live import Live

    with _board(port, timeout) as link:
        end_s = time.monotonic() + seconds if seconds else float("inf")
        if as_json:
            while time.monotonic() < end_s:
                time.sleep(min(1.0, max(end_s - time.monotonic(), 0.0)))
                print_json(_facts(link))
            return
        with Live(console=Console(), refresh_per_second=4) as live:
            while time.monotonic() < end_s:
                live.update(_table(_facts(link)))
                time.sleep(0.25)


def _facts(link: "FirmwareLink") -> dict[str, Any]:
    from firmware_interface.protocol import frames

    facts: dict[str, Any] = {"open": link.open}
    if (status := link.latest(frames.Status)) is not None:
        facts |= {
            "state": frames.State(status.state).name.lower(),
            "last_stop": frames.StopReason(status.stop_reason).name.lower(),
            "faults": [fault.name for fault in frames.Fault(status.faults)],
            "commands_executed": status.commands_executed,
            "commands_stale": status.commands_stale,
            "commands_repeated": status.commands_repeated,
            "board_frames_bad": status.frames_bad,
        }
    if (wheels := link.latest(frames.Wheels)) is not None:
        facts |= {"left_radps": round(wheels.left_radps, 3), "right_radps": round(wheels.right_radps, 3)}
    if (battery := link.latest(frames.Battery)) is not None:
        facts |= {"battery_v": round(battery.voltage_v, 2), "charge": round(battery.charge, 2)}
    if (bumper := link.latest(frames.Bumper)) is not None:
        facts |= {"bumpers": bumper.bumpers, "emergency_stop": bool(bumper.emergency_stop)}
    return facts | link.statistics.as_dict()


def _table(facts: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(
            name.replace("_", " "), ", ".join(value) or "-" if isinstance(value, list) else str(value)
        )
    return table


@app.command(
    epilog="Example:  outrider firmware params /dev/ttyACM0 --set speed_max_mps=0.8 --set wheels_hz=100"
)
def params(
    port: Port,
    assignments: Annotated[list[str], typer.Option("--set", help="NAME=VALUE; may be given often.")] = [],  # noqa: B006
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """Show a board's parameters, or change some: checked here, checked there, stored, acknowledged."""
    from firmware_interface.protocol.tables import PARAMETERS
    from firmware_interface.protocol.values import checked_bits, parameter_named

    wanted: dict[str, float] = {}
    with _clear():
        for text in assignments:
            name, _, value = text.partition("=")
            try:
                wanted[name] = float(value)
            except ValueError:
                raise fail(f"--set {text!r}: expected NAME=NUMBER", 2) from None
            checked_bits(parameter_named(name), wanted[name])
    with _board(port, timeout) as link:
        for name, number in wanted.items():
            link.set_parameter(name, number)
        found = {p.name: link.get_parameter(p.name) for p in PARAMETERS if not wanted or p.name in wanted}
    if as_json:
        print_json(found)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("parameter", "value", "unit", "range")
    for p in PARAMETERS:
        if p.name in found:
            table.add_row(p.name, f"{found[p.name]:g}", p.unit, f"{p.low:g} to {p.high:g}")
    Console().print(table)


@app.command(epilog="Example:  outrider firmware pack board.bin --version 4 --board amr-rev2 --out board.ofw")
def pack(
    payload: Annotated[Path, typer.Argument(help="What the compiler made.", show_default=False)],
    version: Annotated[int, typer.Option(help="Above every version before.", min=1, show_default=False)],
    out: Annotated[Path, typer.Option(help="Where to write the image.", show_default=False)],
    board: Annotated[str, typer.Option(help="The board it is for, as it names itself.")] = BOARD,
    keys: Keys = DEFAULT_KEYS,
) -> None:
    """Sign a firmware image with the fleet's release key."""
    from contracts.atomic import write_atomically
    from firmware_interface.update.image import make_image
    from trainer.release.keys import load_signer

    with _clear():
        signer = load_signer(keys)
        try:
            data = payload.read_bytes()
            image = make_image(data, version, board, lambda head: bytes.fromhex(signer.sign(head).signature))
            write_atomically(out, image)
        except OSError as error:
            raise fail(f"{error.filename or out}: {error.strerror}") from None
    typer.echo(f"{out}: {len(data)} bytes, version {version} for {board}, signed")


@app.command(epilog="Example:  outrider firmware flash /dev/ttyACM0 board.ofw")
def flash(
    port: Port,
    image_file: Annotated[Path, typer.Argument(metavar="IMAGE", help="From `outrider firmware pack`.")],
    keys: Keys = DEFAULT_KEYS,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """Check an image's signature, transfer it, have the board verify it, switch. Run again, it goes on.

    The board checks the signature again with the key in its own memory, before it writes anything. Until the switch it
    runs what it ran before, whatever happens on the way.
    """
    from rich.console import Console
    from rich.progress import Progress

    from contracts.keyring import TRUSTED_FILE
    from contracts.provenance import TrustedKeys
    from firmware_interface.update.flash import flash as transfer
    from firmware_interface.update.image import read_image

    with _clear():
        image = read_image(image_file, TrustedKeys.load(keys / TRUSTED_FILE))
    console = Console(stderr=True)
    quiet = as_json or not console.is_terminal  # a bar in a log file is noise
    with _board(port, timeout) as link, Progress(console=console, disable=quiet) as bar:
        task = bar.add_task("flash", total=len(image.payload))
        done = transfer(link, image, lambda at, _: bar.update(task, completed=at))
    if as_json:
        print_json({"version": done.version, "resumed_at": done.resumed_at, "sent": done.sent})
        return
    typer.echo(f"{port} runs version {done.version}, signed by {image.signed_by}; {done.sent} bytes sent")


@app.command(
    epilog="Example:  outrider firmware soak --fuzz-bytes 1e9 --frames 1e7 --differential 1e6 --stops 250"
)
def soak(
    fuzz_bytes: Annotated[float, typer.Option(help="Bytes into the C core, under sanitizers.", min=0)] = 1e8,
    frames: Annotated[float, typer.Option(help="Commands over a bad line.", min=0)] = 2e5,
    differential: Annotated[float, typer.Option(help="Frames compared in Python and C.", min=0)] = 1e5,
    cuts: Annotated[int, typer.Option(help="Cut the power at every so many-th byte; 0: never.", min=0)] = 7,
    stops: Annotated[int, typer.Option(help="Trials of each: kill, freeze, unplug, flood.", min=0)] = 10,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Beat the protocol, the firmware and the link; exit code 1 when something gives way."""
    from firmware_interface.emulator.soak import Wanted
    from firmware_interface.emulator.soak import soak as beat

    failed = False
    with _clear():
        wanted = Wanted(round(fuzz_bytes), round(frames), round(differential), cuts, stops, seed)
        for result in beat(wanted):
            failed = failed or not result.good
            if as_json:
                print_json(
                    {"name": result.name, "good": result.good, "seconds": result.seconds, **result.facts}
                )
                continue
            words = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in result.facts.items())
            typer.echo(
                f"{'ok  ' if result.good else 'FAIL'} {result.name:<14}{result.seconds:7.1f} s  {words}"
            )
    if failed:
        raise fail(f"the soak found something; run it again with --seed {seed}")
