"""The stream processors: one agent per file, which writes the table of the same name."""
