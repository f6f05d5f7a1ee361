"""The changelog-backed tables: one per file, with its writer functions and its reader class."""
