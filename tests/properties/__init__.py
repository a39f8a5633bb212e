"""What is always true, tried on made-up cases. A package: names may repeat those of unit/."""
