"""Adapters: each module implements a port of `dpdau_assets.core.ports` with the one library it is named after."""
