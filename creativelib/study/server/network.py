"""Under which address others in the same network reach this machine, and the picture of a link for their phones."""

import io
import socket

import segno


def local_address() -> str:
    """This machine's address in its network; no packet is sent. The loopback address where there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of no machine (RFC 5737): only the route is looked up
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def qr_text(link: str) -> str:
    """The QR code of a link for a terminal."""
    text = io.StringIO()
    segno.make(link, error="m").terminal(out=text, compact=True, border=2)
    return text.getvalue()
