"""How `bench encode` gets its texts, its encoders and their peers."""
