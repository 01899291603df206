"""Sessions and the port to their stores."""
