"""What a call costs, in US dollars."""
