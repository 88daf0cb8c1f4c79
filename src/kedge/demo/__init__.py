"""The demo: real flights, real processes, everything through the command line.

`kedge demo` and `make demo` run `story`. It needs the extra `demo`.
"""
