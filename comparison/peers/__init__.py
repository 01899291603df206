"""One file a library: how its documentation says that it is asked and its streams are read."""
