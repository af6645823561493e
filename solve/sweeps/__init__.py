"""Outer products of parameters: cells run by any executor, kept in a store as they finish, and resumed."""
