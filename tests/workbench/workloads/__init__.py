"""What clients do, and what the nodes' answers mean."""
