"""Server: what this server is and can do."""
