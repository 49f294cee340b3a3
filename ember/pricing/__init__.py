"""The cost of calls in US dollars."""
