"""One scenario's site: it answers the server and saves its own state."""
