"""The commands, one file each. `modelstacks.cli.command` finds them; nothing lists them by hand."""
