"""Faust's aiokafka transport with the consumer of this engine."""

from faust.transport.drivers import aiokafka as driver

from chunks.consumer import Consumer


class Transport(driver.Transport):
    """The transport to name in the app's broker URL.

    Replaces: Faust's consumer, which delivers single records.
    """

    Consumer = Consumer
