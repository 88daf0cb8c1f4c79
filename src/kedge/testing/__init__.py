"""Test kit that tests of kedge, and of what is built on it, share. Production code never imports it."""
