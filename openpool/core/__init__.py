"""What the pool *is*: pure decisions. No I/O, clock, randomness or async; no floats for money.

Read `events` and `instructions` first: together they are the whole vocabulary of the system.
"""
