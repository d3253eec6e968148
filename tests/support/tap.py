"""A tap on the wire: a TCP relay before a server that records every byte of both directions."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator

import zstandard

FRAME = b"\x28\xb5\x2f\xfd"


class Tap:
    """Listens on its own port, and forwards everything to `port`."""

    def __init__(self, port: int) -> None:
        self.streams: list[bytearray] = []
        tap = self

        class Relay(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", port)) as server:
                    back = threading.Thread(target=tap.forward, args=(server, self.request))
                    back.start()
                    tap.forward(self.request, server)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def forward(self, source: socket.socket, target: socket.socket) -> None:
        """Forward and record bytes until the source ends."""
        stream = bytearray()
        self.streams.append(stream)
        try:
            while data := source.recv(2**16):
                stream += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def wire(self) -> Iterator[bytes]:
        """Yield all bytes of each direction of each connection, and the zstd frames in them
        decompressed.
        """
        for stream in self.streams:
            yield bytes(stream)
            start = stream.find(FRAME)
            while start >= 0:
                unpacker = zstandard.ZstdDecompressor().decompressobj()
                yield unpacker.decompress(bytes(stream[start:]))
                start = stream.find(FRAME, len(stream) - len(unpacker.unused_data))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
