"""The two clients, for threads and for asyncio."""
