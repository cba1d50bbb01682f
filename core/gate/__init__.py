"""Who gets in: addresses, browsers, keys and tokens, rate limits; one middleware each."""
