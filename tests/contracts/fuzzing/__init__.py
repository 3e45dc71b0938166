"""Random damage to the files that people hand in, and what a reader may make of it.

``mutations`` damages, ``readers`` lists what reads and writes a small sound file for each,
``outcome`` judges. The suite tries some hundred cases; ``benchmarks/tools/fuzz.py`` as many as are
wanted.
"""
