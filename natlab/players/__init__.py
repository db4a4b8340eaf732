"""The programs that play in the lab, one process for each side. `rounds` has what they share."""
