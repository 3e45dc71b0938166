"""Whether two crystals are the same structure: match rates, ceilings, and the choice among many
guesses."""
