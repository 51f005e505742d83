"""The address of the page. Imports neither gradio nor torch, so that an address in use is detected at once."""

import errno
import socket

from sddpm.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of this machine; 0 for any free port.

    Raises:
        UserError: an address that this machine does not have, or a port that is in use or not permitted for this user.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"`port` must be from 0 (any free port) to 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UserError(f"`host` {host!r} is not an address of this machine") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is in use: choose another, or `port=0` for any free one") from error
        raise UserError(f"cannot listen at {host}, port {port}: {error.strerror}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The address to open in a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
