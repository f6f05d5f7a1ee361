"""Pure functions and types of orders, purchases and totals: no I/O, no settings."""
