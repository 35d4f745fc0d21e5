"""Speed and memory of this package and its peers, measured side by side; README.md says how to run it."""
