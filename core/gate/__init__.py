"""Access control: addresses, browsers, keys and tokens, rate limits; `checks` runs them."""
