"""One scenario's site: it answers the server and keeps its own state."""
