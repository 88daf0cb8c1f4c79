"""One module or package for each outside system. They know the ports, and nothing of each other."""
