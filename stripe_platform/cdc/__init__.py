"""Change data capture: Debezium's connector, the topics it writes, and cuts through them."""
