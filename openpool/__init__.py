"""Open Pool: one Livepeer orchestrator, the GPUs of many."""

__version__ = "0.1.0"
