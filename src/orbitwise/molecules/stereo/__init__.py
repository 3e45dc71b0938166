"""Which stereoisomers a molecule can have: elements left open, cumulenes, hindered bonds."""
