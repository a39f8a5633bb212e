"""The shells that follow revenue, divide it, and pay it out."""
