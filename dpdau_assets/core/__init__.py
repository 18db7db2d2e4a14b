"""The rules of dpdau: no Dagster, SQL, file, environment or clock in here; what it needs of them is in `ports`."""
