"""Tests of functions alone: no server, no file, no clock."""
