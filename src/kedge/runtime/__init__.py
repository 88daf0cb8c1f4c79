"""Runtime: the processes of kedge: supervisor, gateway worker, control."""
