"""Measurements of speed on a CPU, one script per question; README.md has the results."""
