"""The running proxy as the console, the status page and the other workers see it."""
