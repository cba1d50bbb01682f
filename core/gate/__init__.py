"""Access control: addresses, browsers, keys and tokens, rate limits; one middleware each."""
