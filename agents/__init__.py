"""Stations of the stream: one agent per file, each feeds the table or topic it is named after."""
