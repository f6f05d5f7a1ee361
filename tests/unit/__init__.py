"""Tests of functions and classes alone: no server, no clock, no file but RocksDB's."""
