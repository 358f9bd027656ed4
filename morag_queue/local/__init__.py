"""The embedded fleet of `demo` and of the end-to-end tests, the demo itself, and the app of `worker`."""
