"""The ports' real implementations: what talks to hubs, to AWS, to other programs."""
