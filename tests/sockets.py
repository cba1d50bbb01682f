"""Bytes to and from a server, for what no HTTP client would send."""

import asyncio

import httpx


async def raw(url: str, *parts: bytes, wait_s: float = 0) -> bytes:
    """Send `parts` with pauses between them, and return everything received."""
    parsed = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
    answer = b""
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(wait_s)
        async with asyncio.timeout(20):
            answer = await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)
    return answer
