"""The command line, composition root of every command. Each has a module of its own, loaded when it runs."""
