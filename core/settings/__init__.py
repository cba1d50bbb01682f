"""Settings from the environment: `schema.Settings`, and `SettingsError` for an invalid value."""
