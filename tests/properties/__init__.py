"""What is always true, tried on made-up cases. A package, so that names may repeat those of unit/."""
