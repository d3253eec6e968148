"""Per-user data: states, residuals, exploration budgets, reward windows and pseudonyms."""
