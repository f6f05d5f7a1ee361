"""One-shot commands: each reads what it needs, says what it found, and ends."""
