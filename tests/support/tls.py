"""TLS in front of a server that has none: certificates, and a proxy that speaks TLS as Redis and Postgres do.

The servers of our pip packages were built without TLS. What is tested is our side: that its options reach the drivers.
The proxy is a process of its own (`python -m tests.support.tls`), which is killed and takes its connections with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.support.golden import ROOT

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""What a Postgres client sends first when it wants TLS; the server answers `S`."""


def authority(folder: Path, name: str = "ca.crt") -> tuple[trustme.CA, Path]:
    """A certificate authority, and its certificate as a file."""
    made = trustme.CA()
    made.cert_pem.write_to_path(folder / name)
    return made, folder / name


@contextmanager
def tls_in_front(port: int, signer: trustme.CA, folder: Path, *, postgres: bool = False) -> Iterator[int]:
    """The port of a proxy with a certificate for 127.0.0.1 that passes everything on to 127.0.0.1:`port`."""
    certificate = folder / f"server-{port}.pem"
    signer.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    command = [sys.executable, "-m", "tests.support.tls", str(port), str(certificate), "postgres" if postgres else ""]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


async def _serve(port: int, certificate: str, postgres: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that does not trust us hangs up, which is what some tests want.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if postgres:
                if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                    writer.close()  # nobody gets in without TLS
                    return
                writer.write(b"S")
                await writer.start_tls(context)
            behind, ahead = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_pass_on(reader, ahead), _pass_on(behind, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=None if postgres else context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3] == "postgres"))
