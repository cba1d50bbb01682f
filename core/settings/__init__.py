"""What the environment says: `schema.Settings`, and the `SettingsError` that names a bad value."""
