"""The loops of the control process: patrol, alerting, diagnosis, readiness, drills, retention."""
