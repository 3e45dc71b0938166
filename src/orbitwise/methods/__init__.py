"""Published methods as bindings of parts, one file each with its CARD in ``cards/``.

``orbitwise.methods.config`` loads configurations, ``orbitwise.methods.registry`` knows what is here.
"""
