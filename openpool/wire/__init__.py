"""How others speak to the pool: bytes ⇄ core values. Pure translation, no sockets.

Whatever cannot be read raises `BadMessage`, and nothing else.
"""
