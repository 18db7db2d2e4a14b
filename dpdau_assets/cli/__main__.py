"""`python -m dpdau_assets.cli`, which is `dpdau`."""

from dpdau_assets.cli.main import main

if __name__ == "__main__":
    main()
