"""The shell: gathers values, asks the core once, carries out what it said."""
