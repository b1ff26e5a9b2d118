"""The public names, each loaded when it is asked for; transformers' Auto classes know ours from here on."""

import lazy_loader

from cloc import registration

registration.install()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
