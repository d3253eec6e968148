"""A small synthetic fleet as events, and what one install can send into its log."""
