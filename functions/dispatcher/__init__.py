"""On a schedule: puts what is due on the queue of its flow."""
