"""The demo: a year of flights from New York, as events, online values and a training set."""
