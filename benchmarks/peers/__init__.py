"""One module per peer, each a program with the same command line (`benchmarks.measure`) and one JSON line as output.

They run in virtual environments of their own, so that a module here may import its peer and `benchmarks` alone.
"""
