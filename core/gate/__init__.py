"""Access control: `addresses`; then `checks` runs `browsers`, `auth`, `rates` and `budgets`."""
