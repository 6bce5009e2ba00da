"""Training on several processes and machines: what is sharded, what is sent (page 13)."""
