"""Policy and environment stepped together: in Python, in a graph, compiled."""
