"""Published methods as bindings of parts, a folder a family, each method with its CARD in
``cards/``.

``orbitwise.runs`` loads configurations and knows which methods are here.
"""
