"""Circuit relay v2 of libp2p: a node that nobody can dial is reached through one that both sides can.

General layout: `messages` is what is said, as bytes; `streams` makes a stream of libp2p one that can be given up;
`reservations` decides who may use a relay, and how much; `service` is the relay; `client` is the node that is reached
through one; `dialling` is the node that dials such a node; `roles` is what a network knows of all this, and loads
`wiring` and the rest when it is needed. What goes through a circuit is an ordinary connection of libp2p, encrypted from
end to end: the relay sees who speaks with whom, when and how much, and nothing else.

Of libp2p's own implementation only the message definitions are used: its handlers put deadlines around the reads and
writes of streams, which corrupts connections (see `node.net.host`), and go round the limits on connections.
"""
