"""Kafka, MariaDB and MySQL as local processes, for `make demo`, the tests and the benchmarks."""
