"""Online stores: values by key for look-ups during a request, in SQLite, LMDB or Redis.

A namespace is one generation of one view (`carrier_delays/1/2/3`): a flip moves a pointer, not
values. Every store has one packed row for each key, so that a read is one look-up without decoding.
"""
