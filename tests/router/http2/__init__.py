"""HTTP/2 at the router's door."""
