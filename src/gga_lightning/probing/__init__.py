"""Evaluates the domain losses of any LightningModule without side effects.

``domains`` finds the domains in a training batch, ``source`` the loss of a module. ``sandbox``
runs the module's code on a copy, made by ``twin``; ``check`` verifies on the first batch of a fit
that nothing else was touched. ``probe`` puts these together.
"""

from gga_lightning.probing.domains import Domain, Split, Splitter, shuffle_domains
from gga_lightning.probing.source import DomainLoss

__all__ = ["Domain", "DomainLoss", "Split", "Splitter", "shuffle_domains"]
