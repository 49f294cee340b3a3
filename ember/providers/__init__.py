"""The providers: wires and servers."""
