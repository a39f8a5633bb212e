"""A plain proxy process: PORT of the server behind it. Prints its own port.

What a pool is compared with: aiohttp's server and aiohttp's client, nothing in between.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web


async def main() -> None:
    """Serve until terminated."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def relay(request: web.Request) -> web.StreamResponse:
            url = f"http://127.0.0.1:{sys.argv[1]}{request.path_qs}"
            async with session.post(url, data=request.content) as answer:
                kept = ("content-type", "content-length")
                headers = {k: answer.headers[k] for k in kept if k in answer.headers}
                response = web.StreamResponse(status=answer.status, headers=headers)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response

        app = web.Application()
        app.router.add_post("/{path:.*}", relay)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
