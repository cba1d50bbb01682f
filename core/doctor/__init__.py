"""`python -m core.doctor` says what is wrong with this server, and what to do about it."""
