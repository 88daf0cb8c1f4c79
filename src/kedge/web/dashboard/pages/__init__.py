"""Pages: functions that build what a page shows from the results of operations. They are pure."""
