"""What the stream remembers: one changelog-backed table per file, with its typed reader."""
