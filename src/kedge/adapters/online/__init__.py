"""Values by key, for what is looked up while a request waits: SQLite, LMDB or Redis.

A namespace is one generation of one view (`carrier_delays/1/2/3`): a flip moves a pointer, and no value.
Every store keeps one packed row a key, so that a read is one look-up and no decoding.
"""
