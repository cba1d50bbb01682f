"""Access control, a middleware each: `addresses`, `browsers`, `auth`, `rates` and `budgets`."""
