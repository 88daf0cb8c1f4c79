"""Engine: the shell that gathers values, asks the core once, and carries out its decision."""
