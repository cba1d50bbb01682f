"""Who used how much: `ledger.Ledger` counts every answer, `python -m core.usage` prints a table."""
