"""What Aether costs: processor time, memory and start-up, beside a server that answers at once."""
