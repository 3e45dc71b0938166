"""Claims of speed, what methods reach, long reference runs, and the tools that they share."""
