"""Pure metric functions; one module a family."""
