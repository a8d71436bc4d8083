"""The first program in a workspace: it starts another, and forwards its calls of the model.

Run by a plain Python in a place without a network. argv: a Unix socket, a port of loopback, and the
command to be started. What connects to the port talks with the socket. Ends as the command ends.
"""

import asyncio
import contextlib
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries bytes one way until the end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def main(path: str, port: int, command: list[str]) -> int:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            to_reader, to_writer = await asyncio.open_unix_connection(path)
            await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))
            to_writer.close()
        writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", port)
    async with server:
        program = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        code = await program.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])))
