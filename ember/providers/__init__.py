"""The providers: wires, servers and the table of them."""
