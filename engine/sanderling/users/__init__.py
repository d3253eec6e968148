"""What the device knows of its users: states, residuals, budgets, reward windows and pseudonyms."""
