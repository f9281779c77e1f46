"""What a large body costs before anyone looks at it: uvloop reads all of it and answers with two bytes."""

import asyncio
import sys

import uvloop

REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Sink(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.left = 0

    def data_received(self, data: bytes) -> None:
        if not self.left:
            head, _, body = data.partition(b"\r\n\r\n")
            self.left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            data = body
        self.left -= len(data)
        if not self.left:
            self.transport.write(REPLY)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
