"""Kafka and MariaDB as local processes, for `make demo`, the tests and the benchmarks."""
