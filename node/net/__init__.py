"""The only part of peertask that touches libp2p."""

from node.net.libp2p_packages import let_packages_wait
from node.net.libp2p_pin import require_pinned_libp2p

# Before any module below imports libp2p: a foreign version must end in words, not in an ImportError from inside it.
require_pinned_libp2p()
let_packages_wait()
