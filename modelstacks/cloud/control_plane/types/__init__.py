"""The emulated resource types, one file a service; each is found by being here."""
