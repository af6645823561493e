"""A user's own equations against the derived ones (:func:`effdyn.validate.audit`)."""
