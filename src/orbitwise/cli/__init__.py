"""The commands. They have no logic of their own: each builds a configuration and calls a method."""
