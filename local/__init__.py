"""Kafka and MariaDB as local processes, for `make demo` and for the tests."""
