"""Which model suits a link, a device and a deadline, by what was measured."""
