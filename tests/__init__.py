"""The tests; what is real in them grows: unit, contract, real, system."""
