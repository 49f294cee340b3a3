"""Every patch of somebody else's code."""
