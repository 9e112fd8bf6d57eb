"""A server on loopback whose answers a test determines, one a request: what real gateways answer
only when they are full, restarted, or none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.conftest import free_port


@dataclass
class Scripted:
    """The server's URL, and the request lines that it got."""

    url: str
    lines: list[str] = field(default_factory=list)


def answer(status: str, body: str = "", **headers: str) -> bytes:
    """An HTTP/1.1 answer that closes its connection."""
    fields = {"content-length": str(len(body.encode())), "connection": "close"} | headers
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n{body}".encode()


@contextmanager
def scripted(answers: Sequence[bytes]) -> Iterator[Scripted]:
    """Gives one connection after the other its answer, the last one for ever; b"" closes the
    connection without one."""
    port = free_port()
    served = Scripted(f"http://127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, list(answers), served.lines))
        thread.start()
        try:
            yield served
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, answers: list[bytes], lines: list[str]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as reader:
            lines.append(reader.readline().decode().strip())
            length = 0
            for line in iter(reader.readline, b"\r\n"):
                name, _, value = line.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
            reader.read(length)
            connection.sendall(answers[0])
        if len(answers) > 1:
            answers.pop(0)
