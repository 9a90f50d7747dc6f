"""Where records are kept: dumb persistence, one module for each place."""
