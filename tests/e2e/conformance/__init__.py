"""One real broker each, as the conformance suite sees it: see base.py."""
