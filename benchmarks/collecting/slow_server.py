"""A server of the OpenAI chat protocol whose answers take a log-normal time. Prints its port.

argv: median seconds, p99 over p50. One process, so that the other core is the collector's.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys

from experience.text.strict_json import dumps

_ANSWER = dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "left"},
            }
        ],
    }
).encode()
_Z99 = 2.3263
"""The 99th percentile of a standard normal."""


def sigma_of(ratio: float) -> float:
    """The log-normal's σ, from the ratio of its 99th percentile to its median."""
    return math.log(ratio) / _Z99


async def serve(median: float, ratio: float) -> None:
    draw = random.Random(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            await reader.readexactly(length)
            await asyncio.sleep(draw.lognormvariate(math.log(median), sigma_of(ratio)))
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
                + str(len(_ANSWER)).encode()
                + b"\r\n\r\n"
                + _ANSWER
            )

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), float(sys.argv[2])))
