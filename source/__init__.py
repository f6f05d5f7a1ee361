"""The event source: rows that a shop writes to MySQL become events in the topic `orders`.

Triggers copy every change of the shop's table into an outbox; the source publishes the outbox in
the order of its ids and deletes a row only after Kafka has acknowledged it. There is no position
that could be lost: the outbox contains exactly the changes that are not published yet
(docs/decisions/001-trigger-outbox.md).
"""
