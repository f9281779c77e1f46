"""The emulated AWS account: moto's server in a process of its own, its credentials, and who may call it."""
