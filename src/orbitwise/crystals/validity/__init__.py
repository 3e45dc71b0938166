"""Whether a crystal can be one: charges, bond valences, coverage of a set."""
