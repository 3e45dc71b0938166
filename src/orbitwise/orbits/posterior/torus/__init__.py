"""The posterior over periodic translations: exact, with permutations, and by chains."""
