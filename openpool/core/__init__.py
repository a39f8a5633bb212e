"""What the pool *is*: pure decisions. No I/O, no clock, no randomness, no async, no floats for money.

Read `events` and `instructions` first: together they are the whole vocabulary of the system.
"""
