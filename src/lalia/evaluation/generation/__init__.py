"""Metrics of generated speech: what it says, how well and how variedly, how it sounds, and whose voice it is."""
