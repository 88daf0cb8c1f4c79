"""Test kit shared by the tests of kedge and of its plug-ins. Production code never imports it."""
