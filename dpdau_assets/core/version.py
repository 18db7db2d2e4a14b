"""The version of dpdau, as releases are stamped with it and `dpdau --version` prints it."""

VERSION = "0.1.0"
