"""The demo on real flights, from a clone: the same as `kedge demo`.

    python examples/flights/demo.py [--port N] [--rate N]

The code is in `src/kedge/demo`, so that an installed kedge has it too.
"""

from __future__ import annotations

import sys

from kedge.__main__ import run

if __name__ == "__main__":
    sys.argv = ["kedge", "demo", *sys.argv[1:]]
    run()
