"""What people see: REST API, dashboard and metrics. It reads and shows; it decides nothing."""

LIST_MAX = 1000
"""The most that one question for a list is answered with, and that a command asks for."""
