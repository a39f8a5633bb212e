"""The pool process: thin asyncio shells around the core."""
