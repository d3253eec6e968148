"""Tables, public data sets and event segments, read into arrays. Refuses to know models."""
