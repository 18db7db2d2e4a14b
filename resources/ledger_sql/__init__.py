"""The ledger in one SQL database, so that check, charge, draw and store are one transaction.

`schema` has the tables, `database` the transactions; `ledger`, `erasures`, `rebuilds`, `receipts` and `salts` implement
one port each.
"""
