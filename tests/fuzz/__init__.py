"""Decoders of bytes from outside: any input ends with a value, or with the documented error."""
