"""Serial ports, TCP and memory: bytes in and out, never waiting."""

import contextlib
import errno
import os
import socket
import termios
from typing import Protocol

import serial

from firmware_interface.errors import NoBoardError, PortBusyError, PortDeniedError, PortMissingError

BAUD = 921_600
TCP = "tcp://"
CONNECT_MAX_S = 2.0
READ_MAX_BYTES = 4096


class Transport(Protocol):
    """A line. Neither call waits; both raise OSError when the line is gone."""

    def fileno(self) -> int:
        """For poll(2)."""

    def read(self) -> bytes:
        """What has come; empty when there is nothing, or the far side has hung up: poll(2) tells them apart."""

    def write(self, data: bytes) -> int:
        """How many bytes were taken; 0 when there is no room."""

    def close(self) -> None:
        """Let go of it."""


class DescriptorTransport:
    """A transport over a non-blocking file descriptor; ``owner`` is what closes it."""

    def __init__(self, owner: serial.Serial | socket.socket) -> None:
        self._owner = owner
        self._descriptor = owner.fileno()

    def fileno(self) -> int:
        """The descriptor; -1 when closed."""
        return self._descriptor

    def read(self) -> bytes:
        """At most 4 KiB."""
        try:
            return os.read(self._descriptor, READ_MAX_BYTES)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> int:
        """As much as fits."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the owner; a port that is gone already is no error."""
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._owner.close()


def open_port(port: str, baud: int = BAUD) -> Transport:
    """A serial port by its path, or ``tcp://HOST:PORT``; raises a named FirmwareError that says what to do."""
    return _open_tcp(port) if port.startswith(TCP) else _open_serial(port, baud)


def _open_serial(port: str, baud: int) -> Transport:
    try:
        line = serial.Serial(port, baud, timeout=0, write_timeout=0, exclusive=True)
    except (serial.SerialException, OSError, termios.error) as error:
        raise _named(port, error) from None
    return DescriptorTransport(line)


def _named(port: str, error: Exception) -> PortMissingError | PortDeniedError | PortBusyError | NoBoardError:
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return PortDeniedError(
            f"{port}: permission denied; add this user to the port's group ('ls -l {port}', often "
            "'sudo usermod -aG dialout $USER', then log in again)"
        )
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EISDIR):
        return PortMissingError(
            f"{port}: there is no such port; plugged in? 'ls /dev/serial/by-id' lists them"
        )
    if number in (errno.EBUSY, errno.EAGAIN):
        return PortBusyError(f"{port}: another program holds it; 'fuser {port}' names it")
    return NoBoardError(f"{port}: is no serial port ({error})")


def _open_tcp(port: str) -> Transport:
    host, _, number = port.removeprefix(TCP).rpartition(":")
    if not host or not number.isdigit() or not 0 < int(number) < 65536:
        raise PortMissingError(f"{port}: expected tcp://HOST:PORT")
    try:
        line = socket.create_connection((host, int(number)), CONNECT_MAX_S)
    except OSError as error:
        raise PortMissingError(f"{port}: nothing answers there ({error})") from None
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setblocking(False)
    return DescriptorTransport(line)


def memory_pair() -> tuple[Transport, Transport]:
    """Two ends of a line within this process."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return DescriptorTransport(ends[0]), DescriptorTransport(ends[1])
