"""The commands of ``peertask``: each module has one, called ``command``."""
