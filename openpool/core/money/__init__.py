"""What is done with money once it is earned: shared, paid, proved, mended. All of it pure."""
