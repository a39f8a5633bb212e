"""Where the pool remembers: the event log, the ledger and the rollups, in one SQLite file.

One transaction holds a batch of events with the transfers and rollups that follow from them.
"""
