"""Programs that measure; README.md has the command that runs each. Nothing else imports from here."""
